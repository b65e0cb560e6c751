/* A plain epoll echo server, to measure clients against: one thread, level-triggered, non-blocking.
 * epoll_echo [PORT [BUFFER]]: listens on 127.0.0.1 (port 0: the system chooses) and prints its
 * address. While a client has echo outstanding, nothing more is read from it: memory is bounded.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
    int fd;
    size_t from, to; /* what is still to be sent back of data */
    char data[];
};

static void die(const char *what)
{
    perror(what);
    exit(3);
}

/* Waits for what conn needs next: room to write if it has something to write, else data. */
static void want(int ep, int op, struct conn *conn)
{
    struct epoll_event ev = {.events = conn->from < conn->to ? EPOLLOUT : EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(ep, op, conn->fd, &ev) < 0)
        die("epoll_ctl");
}

/* One turn of one connection; returns 0 when it is over. */
static int serve(int ep, struct conn *conn, size_t size)
{
    int waiting = conn->from < conn->to;
    ssize_t n;
    if (!waiting) {
        n = recv(conn->fd, conn->data, size, 0);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        conn->from = 0;
        conn->to = n;
    }
    n = send(conn->fd, conn->data + conn->from, conn->to - conn->from, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return 0;
    conn->from += n > 0 ? n : 0;
    if (waiting != (conn->from < conn->to))
        want(ep, EPOLL_CTL_MOD, conn);
    return 1;
}

static int listen_at(int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof here;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (void *)&here, length) < 0 || listen(fd, 4096) < 0)
        die("listen");
    getsockname(fd, (void *)&here, &length);
    printf("Server started: 127.0.0.1:%d\n", ntohs(here.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    int listener = listen_at(argc > 1 ? atoi(argv[1]) : 10007), ep = epoll_create1(0);
    size_t size = argc > 2 ? atoi(argv[2]) : 64 * 1024;
    struct epoll_event events[256], ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn && !serve(ep, conn, size)) {
                close(conn->fd);
                free(conn);
            } else if (!conn) {
                int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0)
                    continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                if (!(conn = malloc(sizeof *conn + size)))
                    die("malloc");
                *conn = (struct conn){.fd = fd};
                want(ep, EPOLL_CTL_ADD, conn);
            }
        }
    }
}
