/* What the kernel lets one thread do: a server that parses as little as may be and sends each message to each member
 * by one send(2). A room at /all, an echo at /echo: send_loop PORT
 *
 * It is a yardstick and no server: it trusts its peer, knows messages up to 65,535 bytes only, drops what a full
 * socket does not take, and answers the one key that the load generator sends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 16, BATCH = 256, BUFFER = 1 << 17, MASK = 4 };

struct connection {
    enum { FREE, NEW, MEMBER, ECHOING } state;
    int place;           /* in the list of members */
    unsigned char *rest; /* the beginning of a frame, of which the end is still to come */
    size_t left;
};

static struct connection connections[MOST]; /* by descriptor */
static int members[MOST], count;

/* The accept key belongs to the sample key of RFC 6455, section 1.3. */
static const char SWITCHED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void end(int descriptor) {
    struct connection *it = &connections[descriptor];
    if (it->state == MEMBER) {
        int last = members[--count];
        members[it->place] = last;
        connections[last].place = it->place;
    }
    free(it->rest);
    memset(it, 0, sizeof *it);
    close(descriptor);
}

static void open_connection(int descriptor, const char *request) {
    struct connection *it = &connections[descriptor];
    it->state = strncmp(request, "GET /echo ", 10) ? MEMBER : ECHOING;
    if (it->state == MEMBER) {
        it->place = count;
        members[count++] = descriptor;
    }
    send(descriptor, SWITCHED, sizeof SWITCHED - 1, MSG_NOSIGNAL);
}

/* One message, as a frame of a client: unmask it, and send it on as a server's frame. */
static void handle(int descriptor, unsigned char *frame, size_t head, size_t length) {
    unsigned char *mask = frame + head, *payload = mask + MASK, *out = payload - head;
    unsigned char key[MASK];
    memcpy(key, mask, MASK);
    for (size_t i = 0; i < length; i++) payload[i] ^= key[i % MASK];
    memmove(out, frame, head);
    out[1] &= 0x7f; /* no mask */
    if (connections[descriptor].state == ECHOING)
        send(descriptor, out, head + length, MSG_NOSIGNAL);
    else
        for (int i = 0; i < count; i++) send(members[i], out, head + length, MSG_NOSIGNAL);
}

/* All whole frames of what came; how many bytes they were, or -1 if the peer says goodbye. */
static ssize_t take(int descriptor, unsigned char *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2) {
        size_t head = 2, length = data[at + 1] & 0x7f;
        if (length == 126) {
            if (size - at < 4) break;
            head = 4;
            length = (size_t)data[at + 2] << 8 | data[at + 3];
        }
        if (size - at < head + MASK + length) break;
        if ((data[at] & 0x0f) == 0x8) return -1;
        handle(descriptor, data + at, head, length);
        at += head + MASK + length;
    }
    return (ssize_t)at;
}

static void serve(int descriptor) {
    static unsigned char buffer[BUFFER];
    struct connection *it = &connections[descriptor];
    size_t kept = it->left;
    if (kept) memcpy(buffer, it->rest, kept);
    ssize_t size = recv(descriptor, buffer + kept, sizeof buffer - kept - 1, 0);
    if (size <= 0) return end(descriptor);
    size += (ssize_t)kept;
    if (it->state == NEW) { /* the head is small and comes at once */
        buffer[size] = 0;
        return open_connection(descriptor, (char *)buffer);
    }
    ssize_t taken = take(descriptor, buffer, (size_t)size);
    if (taken < 0) return end(descriptor);
    it->left = (size_t)(size - taken);
    free(it->rest);
    it->rest = it->left ? memcpy(malloc(it->left), buffer + taken, it->left) : NULL;
}

static int listen_on(int port) {
    int descriptor = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address) || listen(descriptor, 1024)) {
        perror("send_loop");
        exit(1);
    }
    return descriptor;
}

int main(int argc, char **argv) {
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0), epoll = epoll_create1(0), on = 1;
    struct epoll_event waits = {.events = EPOLLIN, .data.fd = listener}, ready[BATCH];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &waits);
    puts("serving");
    fflush(stdout);
    for (;;) {
        int found = epoll_wait(epoll, ready, BATCH, -1);
        for (int i = 0; i < found; i++) {
            int descriptor = ready[i].data.fd;
            if (descriptor != listener) {
                serve(descriptor);
                continue;
            }
            int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (peer < 0) continue;
            if (peer >= MOST) {
                close(peer);
                continue;
            }
            setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            connections[peer].state = NEW;
            waits.data.fd = peer;
            epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &waits);
        }
    }
}
