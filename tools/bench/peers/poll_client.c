/* A plain poll client, to measure clients against: poll_client PORT COUNT LENGTH [compare] sends
 * COUNT messages of LENGTH bytes to an echo server on 127.0.0.1 and reads its answer to the end.
 * It writes up to 64 KiB at a time, always the same, and counts what comes back, or compares it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void die(const char *what)
{
    perror(what);
    exit(3);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return fprintf(stderr, "usage: poll_client PORT COUNT LENGTH [compare]\n"), 2;
    int compares = argc > 4, differs = 0;
    size_t size = 64 * 1024;
    unsigned long long total = strtoull(argv[2], 0, 10) * strtoull(argv[3], 0, 10), sent = 0, back = 0;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    char *out = malloc(size), *in = malloc(size);
    struct pollfd sock = {.fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN | POLLOUT};
    if (!out || !in || connect(sock.fd, (void *)&there, sizeof there) < 0)
        die("connect");
    fcntl(sock.fd, F_SETFL, O_NONBLOCK);
    memset(out, 'a', size);
    for (;;) {
        if (poll(&sock, 1, 10000) <= 0)
            die("poll");
        if (sock.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(sock.fd, in, size, 0);
            if (n < 0 && errno != EAGAIN)
                die("recv");
            if (n == 0)
                break;
            if (compares && n > 0)
                differs |= memcmp(in, out, n); /* every byte is an 'a' */
            back += n > 0 ? n : 0;
        }
        if (sock.revents & POLLOUT) {
            size_t left = total - sent < size ? total - sent : size;
            ssize_t n = send(sock.fd, out, left, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                die("send");
            sent += n > 0 ? n : 0;
            if (sent == total) {
                shutdown(sock.fd, SHUT_WR);
                sock.events = POLLIN; /* with nothing to write, POLLOUT would make this loop spin */
            }
        }
    }
    printf("%llu sent, %llu back\n", sent, back);
    return differs || back != total;
}
