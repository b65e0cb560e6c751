/* A plain process-per-connection echo server, to measure server_fork against.
 * fork_echo [PORT [BUFFER]]: listens on 127.0.0.1 (port 0: the system chooses) and prints its
 * address. Children are reaped by a SIGCHLD handler.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(3);
}

static void reap(int signal)
{
    int before = errno;
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = before;
}

static void serve(int fd, size_t size)
{
    int one = 1;
    char *data = malloc(size);
    ssize_t n;
    if (!data)
        die("malloc");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while ((n = recv(fd, data, size, 0)) > 0 || (n < 0 && errno == EINTR))
        for (ssize_t sent = 0, m; sent < n; sent += m)
            if ((m = send(fd, data + sent, n - sent, MSG_NOSIGNAL)) < 0 && (m = 0, errno != EINTR))
                return;
}

static int listen_at(int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof here;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
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
    int listener = listen_at(argc > 1 ? atoi(argv[1]) : 10007);
    size_t size = argc > 2 ? atoi(argv[2]) : 1024;
    struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    sigaction(SIGCHLD, &action, NULL);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pid_t child = fd < 0 ? 0 : fork();
        if (fd < 0)
            continue;
        if (child == 0) {
            close(listener);
            serve(fd, size);
            exit(0);
        }
        close(fd);
    }
}
