/* Loaded into the process under test (LD_PRELOAD): a wall clock that jumps and names that stop to resolve, both told by files
   in the folder SHIM. clock: seconds by which the wall clock is off. NAME.dns: the address of NAME.test, or "hang"; without it
   the name server does not answer. asked: grows by a byte with every look-up of such a name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int told(const char *name, char *text, size_t size) {
    char path[512];
    const char *folder = getenv("SHIM");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    char text[32];
    int result = syscall(SYS_clock_gettime, id, ts);
    if (result == 0 && id == CLOCK_REALTIME && told("clock", text, sizeof text)) ts->tv_sec += atol(text);
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec ts;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return result;
}

time_t time(time_t *at) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (at) *at = ts.tv_sec;
    return ts.tv_sec;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    size_t length = name ? strlen(name) : 0;
    if (length < 6 || length > 200 || strcmp(name + length - 5, ".test") != 0) return next(name, service, hints, found);
    char file[256], address[64], path[512];
    snprintf(path, sizeof path, "%s/asked", getenv("SHIM"));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, ".", 1) < 0) perror("asked");
    if (fd >= 0) close(fd);
    snprintf(file, sizeof file, "%.*s.dns", (int)(length - 5), name);
    if (!told(file, address, sizeof address)) return EAI_AGAIN;
    if (strcmp(address, "hang") == 0) {
        sleep(60);
        return EAI_AGAIN;
    }
    return next(address, service, hints, found);
}
