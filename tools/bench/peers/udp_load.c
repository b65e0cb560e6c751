/* Loads an uppercase server over UDP on 127.0.0.1, for so many seconds, with datagrams of LENGTH bytes.
 * udp_load PORT window N SECONDS LENGTH   N on their way at any time: an answer releases the next
 * udp_load PORT rate N SECONDS LENGTH     N a second, whether the server answers or not
 * Each carries a number; an answer counts once, and only if it is the datagram in upper case.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NUMBER = 10 };

static int sock;
static size_t length;
static char out[65508], in[65508], wanted[65508];
static unsigned long sent, answered, wrong, capacity;
static unsigned char *seen; /* one for each number */

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

static void number(unsigned long n)
{
    for (int i = NUMBER - 1; i >= 0; i--, n /= 10)
        out[i] = '0' + n % 10;
}

static void send_next(void)
{
    number(sent);
    if (sent >= capacity) {
        fprintf(stderr, "too many datagrams\n");
        exit(3);
    }
    if (send(sock, out, length, 0) != (ssize_t)length)
        die("send");
    sent++;
}

/* Takes the answers that are there; returns how many. */
static unsigned long take(void)
{
    unsigned long taken = 0;
    for (;;) {
        ssize_t n = recv(sock, in, sizeof in, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return taken;
        if (n < 0)
            die("recv");
        unsigned long which = 0;
        for (int i = 0; i < NUMBER && n >= NUMBER; i++)
            which = which * 10 + (in[i] - '0');
        if ((size_t)n != length || which >= sent || seen[which] ||
            memcmp(in + NUMBER, wanted + NUMBER, length - NUMBER)) {
            wrong++;
            continue;
        }
        seen[which] = 1;
        answered++;
        taken++;
    }
}

static int wait_for_answers(int milliseconds)
{
    struct pollfd fd = {.fd = sock, .events = POLLIN};
    return poll(&fd, 1, milliseconds) > 0;
}

static void window(unsigned long n, double end)
{
    unsigned long on_their_way = 0;
    while (now() < end) {
        for (; on_their_way < n; on_their_way++)
            send_next();
        unsigned long taken = wait_for_answers(200) ? take() : 0;
        on_their_way = taken ? on_their_way - taken : 0; /* none for so long: they are lost */
    }
}

static void rate(double n, double end)
{
    double start = now();
    while (now() < end) {
        unsigned long due = (now() - start) * n;
        for (int burst = 0; sent < due && burst < 1000; burst++)
            send_next();
        take();
        if (sent >= due) {
            struct timespec pause = {.tv_nsec = 200000};
            nanosleep(&pause, NULL);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return fprintf(stderr, "usage: udp_load PORT window|rate N SECONDS LENGTH\n"), 2;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    double n = atof(argv[3]), seconds = atof(argv[4]);
    int room = 4 << 20;
    length = atoi(argv[5]);
    if (length < NUMBER || length > 65507)
        return fprintf(stderr, "LENGTH is from %d to 65507\n", NUMBER), 2;
    capacity = 2e6 * (seconds + 1);
    seen = calloc(capacity, 1);
    sock = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (!seen || sock < 0 || connect(sock, (void *)&there, sizeof there) < 0)
        die("connect");
    memset(out, 'a', length);
    memset(wanted, 'A', length);
    double start = now();
    if (!strcmp(argv[2], "window"))
        window(n, start + seconds);
    else
        rate(n, start + seconds);
    double took = now() - start;
    while (answered < sent && wait_for_answers(300)) /* the last ones */
        take();
    printf("%lu sent, %lu answered, %lu lost, %lu wrong, %.0f answered/s, %.0f sent/s\n", sent, answered,
           sent - answered, wrong, answered / took, sent / took);
    return wrong > 0;
}
