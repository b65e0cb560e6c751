/* A plain epoll load generator, to check clients_select against: load PORT CONNS ROUNDS LENGTH
 * opens CONNS connections to an echo server on 127.0.0.1; each sends LENGTH bytes, waits until they
 * are back, and again, ROUNDS times. All are open before the first sends. Prints the round trips per second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct conn {
    int fd, rounds;
    size_t back;
};

static void die(const char *what)
{
    perror(what);
    exit(3);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fprintf(stderr, "usage: load PORT CONNS ROUNDS LENGTH\n"), 2;
    int conns = atoi(argv[2]), rounds = atoi(argv[3]), one = 1, ep = epoll_create1(0), open = conns;
    size_t length = atol(argv[4]);
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    struct rlimit files = {conns + 16, conns + 16};
    struct conn *all = calloc(conns, sizeof *all);
    struct epoll_event events[256], ev = {.events = EPOLLIN};
    char *message = malloc(length), *data = malloc(length);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setrlimit(RLIMIT_NOFILE, &files);
    memset(message, 'a', length);
    for (struct conn *conn = all; conn < all + conns; conn++) {
        conn->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (conn->fd < 0 || connect(conn->fd, (void *)&there, sizeof there) < 0)
            die("connect");
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        ev.data.ptr = conn;
        epoll_ctl(ep, EPOLL_CTL_ADD, conn->fd, &ev);
    }
    double start = now();
    for (struct conn *conn = all; conn < all + conns; conn++)
        if (send(conn->fd, message, length, MSG_NOSIGNAL) != (ssize_t)length)
            die("send");
    while (open > 0) {
        int n = epoll_wait(ep, events, 256, 10000);
        if (n <= 0)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            ssize_t got = recv(conn->fd, data, length - conn->back, 0);
            if (got <= 0 || memcmp(data, message + conn->back, got) != 0)
                die("recv");
            if ((conn->back += got) < length)
                continue;
            conn->back = 0;
            if (++conn->rounds == rounds)
                close(conn->fd), open--;
            else if (send(conn->fd, message, length, MSG_NOSIGNAL) != (ssize_t)length)
                die("send");
        }
    }
    printf("%.0f round trips per second\n", (double)conns * rounds / (now() - start));
}
