/*
 * Preloaded into a process (LD_PRELOAD), this library makes single system calls on files below ONE folder fail, hang,
 * be slow or be short, gives that folder a size, and moves the wall clock of the process. Which of it happens stands
 * in a control file that both sides map: what a test writes there holds from the next call on. The Python side,
 * with what each word is for, is tests/preload/control.py; the two layouts must agree.
 *
 * Decides nothing: it does what the control file says. Must never touch a file outside of the folder, nor a clock
 * that cannot jump (CLOCK_MONOTONIC).
 *
 * There is no #include: a machine without the C library's headers (on Debian: libc6-dev) can build it, with gcc,
 * clang or tcc. What is declared by hand is the ABI of 64-bit Linux with glibc, which does not change.
 */

#define WORDS_OF_HEAD 8
#define WORDS_OF_CALL 10
#define FOLDER_AT 4096
#define CONTROL_BYTES 8192
#define MAGIC 0x71756f7465627573L

/* The order of Call in control.py. */
enum { OPEN, READ, WRITE, SYNC, TRUNCATE, UNLINK, RENAME, MKDIR, STAT, LIST, LOCK, CLOSE };
/* Words of the head. */
enum { MAGIC_WORD, CLOCK_NS, CAPACITY_BYTES, USED_BYTES, HOG_BYTES };
/* Words of each call. */
enum { ERRNO, SKIP, TIMES, DELAY_NS, HANGS, MOST_BYTES, CALLS, FAILED, WAITING };

typedef long word;
typedef unsigned long size_t;
typedef unsigned int mode_t;
struct iovec { char *base; size_t bytes; };
struct timespec { long s, ns; };
struct timeval { long s, us; };

extern int *__errno_location(void);
extern void *dlsym(void *, const char *);
extern char *getenv(const char *);
extern char *getcwd(char *, size_t);
extern void *mmap(void *, size_t, int, int, int, long);
extern long syscall(long, ...);
extern long readlink(const char *, char *, size_t);
extern int nanosleep(const struct timespec *, struct timespec *);
extern int fcntl(int, int, ...);
extern long lseek(int, long, int);

#define ENOSPC_ 28
#define AT_CWD (-100)
#define O_CREAT_ 0100
#define O_TRUNC_ 01000
#define O_APPEND_ 02000
#define O_RDWR_ 2
#define AT_EMPTY_PATH_ 0x1000
#define MOST_PARTS 1024
#define MOST_DESCRIPTORS 65536

typedef char this_library_is_for_machines_of_64_bit[sizeof(word) == 8 ? 1 : -1];

/* The next definition of a function: the C library's own. */
#define NEXT(type, name) ({ static type next; if (!next) next = (type) dlsym((void *) -1L, name); next; })

static volatile word *control;
static int is_looked_up;
static const char *folder;
static size_t folder_bytes;
static volatile char ours[MOST_DESCRIPTORS];

typedef int (*open_type)(const char *, int, mode_t);
typedef int (*close_type)(int);

static int fails(int error) {
    *__errno_location() = error;
    return -1;
}

static volatile word *mapped(void) {
    if (!is_looked_up) {
        const char *path = getenv("PRELOADED_FAULTS");
        if (path) {
            int fd = NEXT(open_type, "open")(path, O_RDWR_, 0);
            if (fd >= 0) {
                volatile word *found = mmap(0, CONTROL_BYTES, 3, 1, fd, 0);
                NEXT(close_type, "close")(fd);
                if (found != (void *) -1L && found[MAGIC_WORD] == MAGIC) {
                    size_t bytes = 0;
                    folder = (const char *) found + FOLDER_AT;
                    while (folder[bytes]) bytes++;
                    folder_bytes = bytes;
                    control = found;
                }
            }
        }
        is_looked_up = 1;
    }
    return control;
}

static int is_below(const char *path) {
    for (size_t i = 0; i < folder_bytes; i++)
        if (path[i] != folder[i]) return 0;
    return folder_bytes && (path[folder_bytes] == 0 || path[folder_bytes] == '/');
}

static int is_ours(int fd) { return mapped() && fd >= 0 && fd < MOST_DESCRIPTORS && ours[fd]; }

/* Whether a path, perhaps from an open folder on, lies below the folder. */
static int is_path_ours(int at, const char *path) {
    char whole[4600], link[32] = "/proc/self/fd/";
    int saved = *__errno_location();
    long n = 0;
    if (!mapped() || !path) return 0;
    if (path[0] == '/') return is_below(path);
    if (at == AT_CWD) {
        if (!getcwd(whole, 4096)) n = -1;
        else while (whole[n]) n++;
    } else {
        char digits[12];
        int used = 0, end = 14;
        for (int left = at < 0 ? 0 : at; left || !used; left /= 10) digits[used++] = '0' + left % 10;
        while (used) link[end++] = digits[--used];
        n = readlink(link, whole, 4096);
    }
    *__errno_location() = saved;
    if (n < 0) return 0;
    if (path[0]) whole[n++] = '/';
    for (int i = 0; path[i] && n < 4599; i++) whole[n++] = path[i];
    whole[n] = 0;
    return is_below(whole);
}

static volatile word *words_of(int call) { return control + WORDS_OF_HEAD + call * WORDS_OF_CALL; }

static void nap(long ns) {
    struct timespec pause = {ns / 1000000000, ns % 1000000000};
    nanosleep(&pause, 0);
}

/* The errno with which this call is to fail now, or 0; returns late where it is to be slow or to hang. */
static int refusal(int call) {
    volatile word *words = words_of(call);
    int saved = *__errno_location();
    words[CALLS]++;
    if (words[DELAY_NS] > 0) nap(words[DELAY_NS]);
    if (words[HANGS]) {
        words[WAITING]++;
        while (words[HANGS]) nap(10000000);
        words[WAITING]--;
    }
    *__errno_location() = saved;
    if (!words[ERRNO]) return 0;
    if (words[SKIP] > 0) { words[SKIP]--; return 0; }
    if (words[TIMES] == 0) return 0;
    if (words[TIMES] > 0) words[TIMES]--;
    words[FAILED]++;
    return (int) words[ERRNO];
}

#define REFUSE(call) do { int error = refusal(call); if (error) return fails(error); } while (0)

/* --- size ----------------------------------------------------------------------------------------------------- */

typedef int (*statx_type)(int, const char *, int, unsigned, void *);

/* Bytes of a file, or -1; `links` as well where it is asked for. The layout of struct statx is the kernel's. */
static word size_of(int at, const char *path, int flags, unsigned *links) {
    unsigned char found[256];
    int saved = *__errno_location();
    int code = NEXT(statx_type, "statx")(at, path, flags, 0x7ff, found);
    *__errno_location() = saved;
    if (code) return -1;
    if ((*(unsigned short *) (found + 28) & 0170000) != 0100000) return 0;
    if (links) *links = *(unsigned *) (found + 16);
    return *(word *) (found + 40);
}

static void grow(word bytes) {
    if (control[USED_BYTES] + bytes < 0) control[USED_BYTES] = 0;
    else control[USED_BYTES] += bytes;
}

/* Of so many bytes, how many may be written at this offset (-1: at the file's own): -1 when not even one. */
static word allowed(int fd, word count, word *at, word *size) {
    word most = words_of(WRITE)[MOST_BYTES], past;
    *size = -1;
    if (most > 0 && count > most) count = most;
    if (control[CAPACITY_BYTES] < 0) return count;
    *size = size_of(fd, "", AT_EMPTY_PATH_, 0);
    if (*size < 0) return count;
    if (*at < 0) *at = fcntl(fd, 3) & O_APPEND_ ? *size : lseek(fd, 0, 1);
    past = *at + count - *size - (control[CAPACITY_BYTES] - control[HOG_BYTES] - control[USED_BYTES]);
    if (*at + count > *size && past > 0) {
        count = past > *at + count - *size ? *size - *at : count - past;
        if (count <= 0) { words_of(WRITE)[FAILED]++; return -1; }
    }
    return count;
}

static void account(word written, word at, word size) {
    if (size >= 0 && written > 0 && at + written > size) grow(at + written - size);
}

/* --- writing and reading -------------------------------------------------------------------------------------- */

typedef long (*vector_type)(int, const struct iovec *, int);
typedef long (*vector_at_type)(int, const struct iovec *, int, long);
typedef long (*vector_flags_type)(int, const struct iovec *, int, long, int);

static long write_parts(int fd, const struct iovec *parts, int count, long at, int flags) {
    struct iovec some[MOST_PARTS];
    word total = 0, size, begin = at, may, done;
    int n = 0;
    REFUSE(WRITE);
    if (count > MOST_PARTS) count = MOST_PARTS;
    for (int i = 0; i < count; i++) total += parts[i].bytes;
    may = allowed(fd, total, &begin, &size);
    if (may < 0) return fails(ENOSPC_);
    for (word left = may; n < count && (left > 0 || n == 0); n++) {
        some[n] = parts[n];
        if ((word) some[n].bytes > left) some[n].bytes = left;
        left -= some[n].bytes;
    }
    if (flags >= 0) done = NEXT(vector_flags_type, "pwritev2")(fd, some, n, at, flags);
    else if (at >= 0) done = NEXT(vector_at_type, "pwritev")(fd, some, n, at);
    else done = NEXT(vector_type, "writev")(fd, some, n);
    account(done, begin, size);
    return done;
}

static long read_parts(int fd, const struct iovec *parts, int count, long at) {
    struct iovec some[MOST_PARTS];
    word most = words_of(READ)[MOST_BYTES];
    int n = 0;
    REFUSE(READ);
    if (count > MOST_PARTS) count = MOST_PARTS;
    if (most <= 0) most = 0x7fffffffffffffffL;
    for (; n < count && (most > 0 || n == 0); n++) {
        some[n] = parts[n];
        if ((word) some[n].bytes > most) some[n].bytes = most;
        most -= some[n].bytes;
    }
    if (at >= 0) return NEXT(vector_at_type, "preadv")(fd, some, n, at);
    return NEXT(vector_type, "readv")(fd, some, n);
}

typedef long (*plain_type)(int, void *, size_t);
typedef long (*plain_at_type)(int, void *, size_t, long);

long write(int fd, const void *bytes, size_t count) {
    struct iovec part = {(char *) bytes, count};
    if (is_ours(fd)) return write_parts(fd, &part, 1, -1, -1);
    return NEXT(plain_type, "write")(fd, (void *) bytes, count);
}

long writev(int fd, const struct iovec *parts, int count) {
    if (is_ours(fd)) return write_parts(fd, parts, count, -1, -1);
    return NEXT(vector_type, "writev")(fd, parts, count);
}

long read(int fd, void *bytes, size_t count) {
    struct iovec part = {bytes, count};
    if (is_ours(fd)) return read_parts(fd, &part, 1, -1);
    return NEXT(plain_type, "read")(fd, bytes, count);
}

long readv(int fd, const struct iovec *parts, int count) {
    if (is_ours(fd)) return read_parts(fd, parts, count, -1);
    return NEXT(vector_type, "readv")(fd, parts, count);
}

long __read_chk(int fd, void *bytes, size_t count, size_t room) { return read(fd, bytes, count); }

#define AT_OFFSET(suffix) \
    long pwrite##suffix(int fd, const void *bytes, size_t count, long at) { \
        struct iovec part = {(char *) bytes, count}; \
        if (is_ours(fd)) return write_parts(fd, &part, 1, at, -1); \
        return NEXT(plain_at_type, "pwrite")(fd, (void *) bytes, count, at); \
    } \
    long pwritev##suffix(int fd, const struct iovec *parts, int count, long at) { \
        if (is_ours(fd)) return write_parts(fd, parts, count, at, -1); \
        return NEXT(vector_at_type, "pwritev")(fd, parts, count, at); \
    } \
    long pread##suffix(int fd, void *bytes, size_t count, long at) { \
        struct iovec part = {bytes, count}; \
        if (is_ours(fd)) return read_parts(fd, &part, 1, at); \
        return NEXT(plain_at_type, "pread")(fd, bytes, count, at); \
    } \
    long __pread##suffix##_chk(int fd, void *bytes, size_t count, long at, size_t room) { \
        return pread##suffix(fd, bytes, count, at); \
    } \
    long preadv##suffix(int fd, const struct iovec *parts, int count, long at) { \
        if (is_ours(fd)) return read_parts(fd, parts, count, at); \
        return NEXT(vector_at_type, "preadv")(fd, parts, count, at); \
    }
AT_OFFSET()
AT_OFFSET(64)

#define WITH_FLAGS(of_write, of_read) \
    long of_write(int fd, const struct iovec *parts, int count, long at, int flags) { \
        if (is_ours(fd)) return write_parts(fd, parts, count, at, flags); \
        return NEXT(vector_flags_type, "pwritev2")(fd, parts, count, at, flags); \
    } \
    long of_read(int fd, const struct iovec *parts, int count, long at, int flags) { \
        if (is_ours(fd)) return read_parts(fd, parts, count, at); \
        return NEXT(vector_flags_type, "preadv2")(fd, parts, count, at, flags); \
    }
WITH_FLAGS(pwritev2, preadv2)
WITH_FLAGS(pwritev64v2, preadv64v2)

/* --- opening and closing -------------------------------------------------------------------------------------- */

typedef int (*openat_type)(int, const char *, int, mode_t);

static int opened(int at, const char *path, int flags, mode_t mode) {
    int is_mine = is_path_ours(at, path), fd;
    word size = -1;
    if (is_mine) {
        REFUSE(OPEN);
        if (flags & O_TRUNC_ && control[CAPACITY_BYTES] >= 0) size = size_of(at, path, 0, 0);
        if (flags & O_CREAT_ && control[CAPACITY_BYTES] >= 0 && size_of(at, path, 0, 0) < 0
            && control[USED_BYTES] + control[HOG_BYTES] >= control[CAPACITY_BYTES]) return fails(ENOSPC_);
    }
    fd = NEXT(openat_type, "openat")(at, path, flags, mode);
    if (fd >= 0 && size > 0) grow(-size);
    if (fd >= 0 && fd < MOST_DESCRIPTORS) ours[fd] = is_mine;
    return fd;
}

int open(const char *path, int flags, mode_t mode) { return opened(AT_CWD, path, flags, mode); }
int open64(const char *path, int flags, mode_t mode) { return opened(AT_CWD, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_CWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_CWD, path, flags, 0); }
int openat(int at, const char *path, int flags, mode_t mode) { return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, mode_t mode) { return opened(at, path, flags, mode); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_CWD, path, O_CREAT_ | O_TRUNC_ | 1, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    /* The descriptor is gone even where close reports an error, as the system has it. */
    int error = is_ours(fd) ? refusal(CLOSE) : 0, code;
    if (fd >= 0 && fd < MOST_DESCRIPTORS) ours[fd] = 0;
    code = NEXT(close_type, "close")(fd);
    return error ? fails(error) : code;
}

/* --- everything else that takes a descriptor ------------------------------------------------------------------ */

typedef int (*two_type)(int, long);
typedef int (*stat_type)(int, void *);

#define OF_DESCRIPTOR(name, call) \
    int name(int fd) { \
        if (is_ours(fd)) REFUSE(call); \
        return NEXT(close_type, #name)(fd); \
    }
OF_DESCRIPTOR(fsync, SYNC)
OF_DESCRIPTOR(fdatasync, SYNC)

int flock(int fd, int what) {
    if (is_ours(fd)) REFUSE(LOCK);
    return NEXT(two_type, "flock")(fd, what);
}

static int shortened(int fd, long bytes) {
    word before = -1;
    int code;
    if (is_ours(fd)) {
        REFUSE(TRUNCATE);
        before = size_of(fd, "", AT_EMPTY_PATH_, 0);
    }
    code = NEXT(two_type, "ftruncate")(fd, bytes);
    if (!code && before >= 0) grow(bytes - before);
    return code;
}

int ftruncate(int fd, long bytes) { return shortened(fd, bytes); }
int ftruncate64(int fd, long bytes) { return shortened(fd, bytes); }

#define FSTAT(name) \
    int name(int fd, void *found) { \
        if (is_ours(fd)) REFUSE(STAT); \
        return NEXT(stat_type, #name)(fd, found); \
    }
FSTAT(fstat)
FSTAT(fstat64)

/* --- everything else that takes a path ------------------------------------------------------------------------ */

typedef int (*path_type)(const char *, long);
typedef int (*path_at_type)(int, const char *, long);

static int shortened_path(const char *path, long bytes) {
    word before = -1;
    int code;
    if (is_path_ours(AT_CWD, path)) {
        REFUSE(TRUNCATE);
        before = size_of(AT_CWD, path, 0, 0);
    }
    code = NEXT(path_type, "truncate")(path, bytes);
    if (!code && before >= 0) grow(bytes - before);
    return code;
}

int truncate(const char *path, long bytes) { return shortened_path(path, bytes); }
int truncate64(const char *path, long bytes) { return shortened_path(path, bytes); }

static int removed(int at, const char *path, int flags) {
    word size = -1;
    unsigned links = 1;
    int code;
    if (is_path_ours(at, path)) {
        REFUSE(UNLINK);
        size = size_of(at, path, 0x100, &links);
    }
    code = NEXT(path_at_type, "unlinkat")(at, path, flags);
    if (!code && size > 0 && links == 1) grow(-size);
    return code;
}

int unlink(const char *path) { return removed(AT_CWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int rmdir(const char *path) { return removed(AT_CWD, path, 0x200); }

typedef int (*renameat_type)(int, const char *, int, const char *);
typedef int (*renameat2_type)(int, const char *, int, const char *, unsigned);

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    word replaced = -1;
    int code;
    if (is_path_ours(from_at, from) || is_path_ours(to_at, to)) {
        REFUSE(RENAME);
        replaced = size_of(to_at, to, 0x100, 0);
    }
    if (flags) code = NEXT(renameat2_type, "renameat2")(from_at, from, to_at, to, flags);
    else code = NEXT(renameat_type, "renameat")(from_at, from, to_at, to);
    if (!code && replaced > 0 && !flags) grow(-replaced);
    return code;
}

int rename(const char *from, const char *to) { return renamed(AT_CWD, from, AT_CWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renamed(from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return renamed(from_at, from, to_at, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    if (is_path_ours(AT_CWD, path)) REFUSE(MKDIR);
    return NEXT(path_type, "mkdir")(path, mode);
}

int mkdirat(int at, const char *path, mode_t mode) {
    if (is_path_ours(at, path)) REFUSE(MKDIR);
    return NEXT(path_at_type, "mkdirat")(at, path, mode);
}

#define STAT_PATH(name) \
    int name(const char *path, void *found) { \
        if (is_path_ours(AT_CWD, path)) REFUSE(STAT); \
        return NEXT(path_type, #name)(path, (long) found); \
    }
STAT_PATH(stat)
STAT_PATH(stat64)
STAT_PATH(lstat)
STAT_PATH(lstat64)

typedef int (*stat_at_type)(int, const char *, void *, int);

#define STAT_AT(name) \
    int name(int at, const char *path, void *found, int flags) { \
        if (is_path_ours(at, path)) REFUSE(STAT); \
        return NEXT(stat_at_type, #name)(at, path, found, flags); \
    }
STAT_AT(fstatat)
STAT_AT(fstatat64)

int access(const char *path, int mode) {
    if (is_path_ours(AT_CWD, path)) REFUSE(STAT);
    return NEXT(path_type, "access")(path, mode);
}

/* Block size, fragment size, blocks, free, available: the first words of struct statvfs. */
static void resize(unsigned long *found) {
    word left = control[CAPACITY_BYTES] - control[HOG_BYTES] - control[USED_BYTES];
    if (control[CAPACITY_BYTES] < 0) return;
    found[2] = control[CAPACITY_BYTES] / found[1];
    found[3] = found[4] = left > 0 ? left / found[1] : 0;
}

#define STATVFS(name) \
    int name(const char *path, unsigned long *found) { \
        int is_mine = is_path_ours(AT_CWD, path), code; \
        if (is_mine) REFUSE(STAT); \
        code = NEXT(path_type, #name)(path, (long) found); \
        if (is_mine && !code) resize(found); \
        return code; \
    } \
    int f##name(int fd, unsigned long *found) { \
        int code; \
        if (is_ours(fd)) REFUSE(STAT); \
        code = NEXT(stat_type, "f" #name)(fd, found); \
        if (is_ours(fd) && !code) resize(found); \
        return code; \
    }
STATVFS(statvfs)
STATVFS(statvfs64)

typedef void *(*opendir_type)(const char *);

void *opendir(const char *path) {
    int error = is_path_ours(AT_CWD, path) ? refusal(LIST) : 0;
    if (error) { fails(error); return 0; }
    return NEXT(opendir_type, "opendir")(path);
}

/* --- the wall clock ------------------------------------------------------------------------------------------- */

typedef int (*clock_type)(int, struct timespec *);

static void shift(struct timespec *at) {
    word ns = at->s * 1000000000L + at->ns + control[CLOCK_NS];
    at->s = ns / 1000000000L;
    at->ns = ns % 1000000000L;
}

int clock_gettime(int clock, struct timespec *at) {
    int code = NEXT(clock_type, "clock_gettime")(clock, at);
    /* CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI. */
    if (!code && (clock == 0 || clock == 5 || clock == 11) && mapped()) shift(at);
    return code;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    int code = clock_gettime(0, &now);
    if (!code && at) { at->s = now.s; at->us = now.ns / 1000; }
    return code;
}

long time(long *at) {
    struct timespec now;
    clock_gettime(0, &now);
    if (at) *at = now.s;
    return now.s;
}
