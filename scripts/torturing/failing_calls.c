/* System calls that fail on order, for files under one folder. Preloaded; does nothing until torture_arm is called.

   From the N-th call of a kind on, once or for ever, the call does nothing and says errno. With N = 0 all are counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char kind[32], prefix[PATH_MAX];
static const char *const kinds[] = {"open", "write", "read", "fsync", "rename", "unlink", "ftruncate", "mmap", "mkdir"};
#define KINDS ((int)(sizeof kinds / sizeof *kinds))
static int code, forever;
static long from;
static atomic_long seen[KINDS];
static atomic_int armed;

void torture_arm(const char *a_kind, int a_code, long a_from, int a_forever, const char *a_prefix) {
    snprintf(kind, sizeof kind, "%s", a_kind);
    snprintf(prefix, sizeof prefix, "%s", a_prefix);
    code = a_code, from = a_from, forever = a_forever;
    for (int i = 0; i < KINDS; i++) atomic_store(&seen[i], 0);
    atomic_store(&armed, 1);
}

static atomic_long *count_of(const char *what) {
    int i = 0;
    while (i < KINDS - 1 && strcmp(kinds[i], what)) i++;
    return &seen[i];
}

long torture_seen(const char *what) { return atomic_load(count_of(what)); }

static int under(const char *path) { return path && !strncmp(path, prefix, strlen(prefix)); }

static int under_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return under(path);
}

static int under_at(int fd, const char *path) {
    return (path && path[0] == '/') || fd == AT_FDCWD ? under(path) : under_fd(fd);
}

/* Whether this call is to fail. */
static int fails(const char *what) {
    long number = atomic_fetch_add(count_of(what), 1) + 1;
    if (!from || strcmp(kind, what) || number < from || (number > from && !forever)) return 0;
    errno = code;
    return 1;
}

#define FAILS(what, is_under) (atomic_load(&armed) && (is_under) && fails(what))
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (FAILS("open", under(path))) return -1; \
        return real(path, flags, mode); }
OPEN(open) OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (FAILS("open", under_at(folder, path))) return -1; \
        return real(folder, path, flags, mode); }
OPENAT(openat) OPENAT(openat64)
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(FILE *, #name, const char *, const char *); \
        if (FAILS("open", under(path))) return NULL; \
        return real(path, mode); }
FOPEN(fopen) FOPEN(fopen64)
size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    if (FAILS("write", under_fd(fileno(file)))) return 0;
    return real(data, size, n, file);
}

#define BY_FD(type, name, what, parameters, ...) \
    type name parameters { \
        static type (*real) parameters; \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (FAILS(what, under_fd(fd))) return -1; \
        return real(__VA_ARGS__); }
BY_FD(ssize_t, write, "write", (int fd, const void *data, size_t size), fd, data, size)
BY_FD(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
BY_FD(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
BY_FD(ssize_t, writev, "write", (int fd, const struct iovec *data, int n), fd, data, n)
BY_FD(ssize_t, read, "read", (int fd, void *data, size_t size), fd, data, size)
BY_FD(ssize_t, pread, "read", (int fd, void *data, size_t size, off_t at), fd, data, size, at)
BY_FD(ssize_t, pread64, "read", (int fd, void *data, size_t size, off64_t at), fd, data, size, at)
BY_FD(int, fsync, "fsync", (int fd), fd)
BY_FD(int, fdatasync, "fsync", (int fd), fd)
BY_FD(int, ftruncate, "ftruncate", (int fd, off_t size), fd, size)
BY_FD(int, ftruncate64, "ftruncate", (int fd, off64_t size), fd, size)

/* posix_fallocate returns the error. */
#define FALLOCATE(name, offset) \
    int name(int fd, offset at, offset size) { \
        REAL(int, #name, int, offset, offset); \
        if (FAILS("write", under_fd(fd))) return code; \
        return real(fd, at, size); }
FALLOCATE(posix_fallocate, off_t) FALLOCATE(posix_fallocate64, off64_t)

#define BY_PATH(name, what, is_under, parameters, ...) \
    int name parameters { \
        static int (*real) parameters; \
        if (!real) real = (int (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (FAILS(what, (is_under))) return -1; \
        return real(__VA_ARGS__); }
BY_PATH(rename, "rename", under(to), (const char *old, const char *to), old, to)
BY_PATH(renameat, "rename", under_at(there, to), (int here, const char *old, int there, const char *to),
        here, old, there, to)
BY_PATH(renameat2, "rename", under_at(there, to), (int here, const char *old, int there, const char *to, unsigned flags),
        here, old, there, to, flags)
BY_PATH(link, "rename", under(to), (const char *old, const char *to), old, to)
BY_PATH(linkat, "rename", under_at(there, to), (int here, const char *old, int there, const char *to, int flags),
        here, old, there, to, flags)
BY_PATH(unlink, "unlink", under(path), (const char *path), path)
BY_PATH(unlinkat, "unlink", under_at(folder, path), (int folder, const char *path, int flags), folder, path, flags)
BY_PATH(mkdir, "mkdir", under(path), (const char *path, mode_t mode), path, mode)

#define MMAP(name, offset) \
    void *name(void *where, size_t size, int protection, int flags, int fd, offset at) { \
        REAL(void *, #name, void *, size_t, int, int, int, offset); \
        if (FAILS("mmap", fd >= 0 && under_fd(fd))) return MAP_FAILED; \
        return real(where, size, protection, flags, fd, at); }
MMAP(mmap, off_t) MMAP(mmap64, off64_t)
