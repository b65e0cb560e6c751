/* A plain thread-per-connection echo server, to measure server_thread against.
 * thread_echo [PORT [BUFFER]]: listens on 127.0.0.1 (port 0: the system chooses) and prints its
 * address. Threads are detached and as the system makes them; the buffer is the connection's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t size = 1024;

static void die(const char *what)
{
    perror(what);
    exit(3);
}

static void *serve(void *arg)
{
    int one = 1, fd = (intptr_t)arg;
    char *data = malloc(size);
    ssize_t n;
    if (!data)
        die("malloc");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while ((n = recv(fd, data, size, 0)) > 0 || (n < 0 && errno == EINTR))
        for (ssize_t sent = 0, m; sent < n; sent += m)
            if ((m = send(fd, data + sent, n - sent, MSG_NOSIGNAL)) < 0 && (m = 0, errno != EINTR))
                goto end;
end:
    free(data);
    close(fd);
    return NULL;
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
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    size = argc > 2 ? atoi(argv[2]) : 1024;
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && pthread_create(&thread, &detached, serve, (void *)(intptr_t)fd) != 0)
            close(fd);
    }
}
