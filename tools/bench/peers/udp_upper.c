/* A plain uppercase server over UDP, to measure servers against: recvfrom, toupper, sendto.
 * udp_upper [PORT]: receives at 127.0.0.1 (port 0: the system chooses) and prints its address.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static void die(const char *what)
{
    perror(what);
    exit(3);
}

int main(int argc, char **argv)
{
    static unsigned char data[65508];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 12000)};
    struct sockaddr_storage client;
    socklen_t length = sizeof here;
    int room = 4 << 20, sock = socket(AF_INET, SOCK_DGRAM, 0);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &room, sizeof room); /* at most what the system allows */
    if (sock < 0 || bind(sock, (void *)&here, length) < 0)
        die("bind");
    getsockname(sock, (void *)&here, &length);
    printf("Server started: 127.0.0.1:%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        length = sizeof client;
        ssize_t n = recvfrom(sock, data, sizeof data, 0, (void *)&client, &length);
        if (n < 0)
            continue;
        for (ssize_t i = 0; i < n; i++)
            data[i] -= data[i] >= 'a' && data[i] <= 'z' ? 'a' - 'A' : 0;
        sendto(sock, data, n, 0, (void *)&client, length);
    }
}
