/* A file layer that can lose power, as a library to be preloaded into the server under test.
 *
 * kill -9 leaves everything that was written in the page cache, so it can never show that an fsync
 * is missing. Here every change below $STORM_ROOT is noted with what was there before it, and every
 * fsync with what it made durable. `tests.storm.powerloss` reads these notes after the process is
 * dead and takes back what no fsync had covered: that is the disk as a power cut may leave it.
 *
 * It can also fail: while $STORM_CONTROL holds an errno, the operations of its mask return it.
 *
 * Notes are appended to $STORM_LOG, one `struct note` each, followed by two names and the bytes
 * that were overwritten. Files are told apart by inode; whatever a name pointed to before it was
 * replaced or removed is kept by a hard link in $STORM_GRAVES, which also keeps its inode number
 * from being given to another file. Not covered: stores through mmap (SQLite's -shm is rebuilt from
 * the log), io_uring, copy_file_range and sendfile into files (they fail, callers fall back).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 65536
#define REAL(name) ((typeof(&name))real(#name, &cache_##name))
#define CACHE(name) static void *cache_##name

struct note {
    uint32_t magic, kind;
    uint64_t ino, offset, new_len, old_size;
    uint32_t name_len, other_len;
    uint64_t old_len;
};

struct control {
    int32_t error, mask; /* bits: 1 write, 2 fsync, 4 open and names */
};

enum { MAGIC = 0x53544f52 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], graves[PATH_MAX];
static size_t root_len;
static int log_fd = -1;
static volatile struct control *control;
static unsigned char tracked[MAX_FDS];
static unsigned long num_graves;

CACHE(open); CACHE(open64); CACHE(openat); CACHE(openat64); CACHE(close); CACHE(write);
CACHE(pwrite); CACHE(pwrite64); CACHE(writev); CACHE(ftruncate); CACHE(ftruncate64);
CACHE(fsync); CACHE(fdatasync); CACHE(renameat); CACHE(unlinkat);
CACHE(link); CACHE(linkat); CACHE(mkdir); CACHE(mkdirat); CACHE(dup2);

static void *real(const char *name, void **cache) {
    if (!*cache) *cache = dlsym(RTLD_NEXT, name);
    return *cache;
}

static void begin(void) {
    const char *given = getenv("STORM_ROOT"), *log = getenv("STORM_LOG");
    const char *saved = getenv("STORM_GRAVES"), *switches = getenv("STORM_CONTROL");
    if (!given || !log || !saved || !realpath(given, root)) return;
    root_len = strlen(root);
    if (snprintf(graves, sizeof graves, "%s/%d", saved, (int)getpid()) >= (int)sizeof graves) return;
    REAL(mkdir)(graves, 0700);
    if (log_fd >= 0) REAL(close)(log_fd);
    num_graves = 0;
    log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (switches) {
        int fd = REAL(open)(switches, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            void *page = mmap(0, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
            if (page != MAP_FAILED) control = page;
            REAL(close)(fd);
        }
    }
}

/* A forked child has notes and graves of its own: those of its parent may be settled by now. */
static void begin_again(void) {
    pthread_mutex_init(&lock, 0);
    begin();
}

__attribute__((constructor)) static void begin_first(void) {
    begin();
    pthread_atfork(0, 0, begin_again);
}

static int fails(int kind) {
    if (!control || !control->error || !(control->mask & kind)) return 0;
    errno = control->error;
    return 1;
}

static int below_root(const char *path) {
    return log_fd >= 0 && !strncmp(path, root, root_len) &&
           (path[root_len] == '/' || !path[root_len]);
}

/* The absolute path of a name whose folder exists; 0 when it is none of ours. */
static int absolute(int dir_fd, const char *path, char *out) {
    char folder[PATH_MAX], joined[PATH_MAX];
    if (log_fd < 0) return 0;
    if (path[0] == '/' || dir_fd == AT_FDCWD) {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir_fd);
        ssize_t n = readlink(link, folder, sizeof folder - 1);
        if (n < 0) return 0;
        folder[n] = 0;
        if (snprintf(joined, sizeof joined, "%s/%s", folder, path) >= (int)sizeof joined) return 0;
    }
    char *slash = strrchr(joined, '/');
    const char *base = slash ? slash + 1 : joined;
    char parent[PATH_MAX];
    if (!slash) strcpy(parent, ".");
    else if (slash == joined) strcpy(parent, "/");
    else { memcpy(parent, joined, slash - joined); parent[slash - joined] = 0; }
    if (!realpath(parent, folder)) return 0;
    if (snprintf(out, PATH_MAX, "%s/%s", folder, base) >= PATH_MAX) return 0;
    return below_root(out);
}

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t n = REAL(write)(log_fd, at, size);
        if (n < 0) { if (errno == EINTR) continue; abort(); }
        at += n;
        size -= n;
    }
}

/* Called with the lock held. */
static void tell(char kind, ino_t ino, uint64_t offset, uint64_t new_len, uint64_t old_size,
                 const char *name, const char *other, const void *old, uint64_t old_len) {
    struct note note = {MAGIC, kind, ino, offset, new_len, old_size,
                        name ? strlen(name) : 0, other ? strlen(other) : 0, old_len};
    put(&note, sizeof note);
    if (name) put(name, note.name_len);
    if (other) put(other, note.other_len);
    if (old_len) put(old, old_len);
}

/* What lies in [offset, offset + length) of the file now; the caller frees it. */
static char *old_bytes(int fd, uint64_t offset, uint64_t length, uint64_t size, uint64_t *found) {
    *found = offset >= size ? 0 : (offset + length > size ? size - offset : length);
    if (!*found) return 0;
    char link[64], *bytes = malloc(*found);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reader = REAL(open)(link, O_RDONLY | O_CLOEXEC);
    if (!bytes || reader < 0 || pread(reader, bytes, *found, offset) != (ssize_t)*found) abort();
    REAL(close)(reader);
    return bytes;
}

static void before_write(int fd, uint64_t offset, uint64_t length) {
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
    uint64_t found;
    char *old = old_bytes(fd, offset, length, st.st_size, &found);
    tell('W', st.st_ino, offset, length, st.st_size, 0, 0, old, found);
    free(old);
}

static void before_truncate(int fd, uint64_t size) {
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
    uint64_t found = 0;
    uint64_t cut = (uint64_t)st.st_size > size ? st.st_size - size : 0;
    char *old = cut ? old_bytes(fd, size, cut, st.st_size, &found) : 0;
    tell('T', st.st_ino, size, size, st.st_size, 0, 0, old, found);
    free(old);
}

static int is_ours(int fd) { return fd >= 0 && fd < MAX_FDS && tracked[fd]; }

static uint64_t position(int fd) {
    struct stat st;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &st) ? 0 : st.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

/* Keep what `path` names now. The grave's name, or an empty one when there is nothing. */
static void bury(const char *path, char *grave) {
    struct stat st;
    grave[0] = 0;
    if (lstat(path, &st) || S_ISDIR(st.st_mode)) return;
    if (snprintf(grave, PATH_MAX, "%s/%lu", graves, num_graves++) >= PATH_MAX) abort();
    if (REAL(link)(path, grave)) grave[0] = 0;
}

static int opened(int dir_fd, const char *path, int flags, mode_t mode, void *opener, int at) {
    char full[PATH_MAX];
    struct stat st;
    int ours = absolute(dir_fd, path, full) && !strstr(full, "-shm");
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (ours && writes && fails(4)) return -1;
    int existed = ours && !lstat(full, &st);
    if (ours) pthread_mutex_lock(&lock);
    if (ours && existed && (flags & O_TRUNC) && writes) {
        int fd = REAL(open)(full, O_RDWR | O_CLOEXEC);
        if (fd >= 0) { before_truncate(fd, 0); REAL(close)(fd); }
    }
    int fd = at ? ((int (*)(int, const char *, int, ...))opener)(dir_fd, path, flags, mode)
                : ((int (*)(const char *, int, ...))opener)(path, flags, mode);
    if (ours) {
        if (fd >= 0 && fd < MAX_FDS) {
            tracked[fd] = 1;
            if (!existed && (flags & O_CREAT) && !fstat(fd, &st))
                tell('C', st.st_ino, 0, 0, 0, full, 0, 0, 0);
        }
        pthread_mutex_unlock(&lock);
    } else if (fd >= 0 && fd < MAX_FDS) {
        tracked[fd] = 0;
    }
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }

int open(const char *path, int flags, ...) {
    MODE(flags) return opened(AT_FDCWD, path, flags, mode, REAL(open), 0);
}
int open64(const char *path, int flags, ...) {
    MODE(flags) return opened(AT_FDCWD, path, flags, mode, REAL(open64), 0);
}
int openat(int dir_fd, const char *path, int flags, ...) {
    MODE(flags) return opened(dir_fd, path, flags, mode, REAL(openat), 1);
}
int openat64(int dir_fd, const char *path, int flags, ...) {
    MODE(flags) return opened(dir_fd, path, flags, mode, REAL(openat64), 1);
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FDS) tracked[fd] = 0;
    return REAL(close)(fd);
}

int dup2(int fd, int copy) {
    int made = REAL(dup2)(fd, copy);
    if (made >= 0 && made < MAX_FDS) tracked[made] = is_ours(fd);
    return made;
}

#define WRITES(result, fd, offset, length, call) \
    if (!is_ours(fd)) return call; \
    if (fails(1)) return -1; \
    pthread_mutex_lock(&lock); \
    before_write(fd, offset, length); \
    result made = call; \
    pthread_mutex_unlock(&lock); \
    return made

ssize_t write(int fd, const void *data, size_t size) {
    WRITES(ssize_t, fd, position(fd), size, REAL(write)(fd, data, size));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    WRITES(ssize_t, fd, offset, size, REAL(pwrite)(fd, data, size, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    WRITES(ssize_t, fd, offset, size, REAL(pwrite64)(fd, data, size, offset));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    WRITES(ssize_t, fd, position(fd), size, REAL(writev)(fd, parts, count));
}

static int truncated(int fd, off64_t size) {
    if (fails(1)) return -1;
    pthread_mutex_lock(&lock);
    before_truncate(fd, size);
    int made = REAL(ftruncate64)(fd, size);
    pthread_mutex_unlock(&lock);
    return made;
}
int ftruncate(int fd, off_t size) { return is_ours(fd) ? truncated(fd, size) : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return is_ours(fd) ? truncated(fd, size) : REAL(ftruncate64)(fd, size); }

/* The disk of the test need not be waited for: what counts is that it was asked for. */
static int synced(int fd) {
    struct stat st;
    char link[64], path[PATH_MAX];
    if (fails(2)) return -1;
    pthread_mutex_lock(&lock);
    if (!fstat(fd, &st)) {
        if (S_ISDIR(st.st_mode)) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, path, sizeof path - 1);
            if (n > 0) { path[n] = 0; tell('D', st.st_ino, 0, 0, 0, path, 0, 0, 0); }
        } else {
            tell('S', st.st_ino, 0, 0, 0, 0, 0, 0, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { return is_ours(fd) ? synced(fd) : REAL(fsync)(fd); }
int fdatasync(int fd) { return is_ours(fd) ? synced(fd) : REAL(fdatasync)(fd); }

static int renamed(int from_fd, const char *from, int to_fd, const char *to) {
    char a[PATH_MAX], b[PATH_MAX], grave[PATH_MAX];
    struct stat st;
    int ours = absolute(from_fd, from, a) | absolute(to_fd, to, b);
    if (!ours) return REAL(renameat)(from_fd, from, to_fd, to);
    if (fails(4)) return -1;
    absolute(from_fd, from, a);
    absolute(to_fd, to, b);
    pthread_mutex_lock(&lock);
    bury(b, grave);
    int made = REAL(renameat)(from_fd, from, to_fd, to);
    if (!made && !lstat(b, &st)) tell('R', st.st_ino, 0, 0, 0, a, b, grave, strlen(grave));
    pthread_mutex_unlock(&lock);
    return made;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return renamed(from_fd, from, to_fd, to);
}

static int removed(int dir_fd, const char *path, int flags) {
    char full[PATH_MAX], grave[PATH_MAX];
    if (flags & AT_REMOVEDIR || !absolute(dir_fd, path, full)) return REAL(unlinkat)(dir_fd, path, flags);
    if (control && control->error != ENOSPC && fails(4)) return -1; /* removing needs no room */
    pthread_mutex_lock(&lock);
    bury(full, grave);
    int made = REAL(unlinkat)(dir_fd, path, flags);
    if (!made && grave[0]) tell('U', 0, 0, 0, 0, full, grave, 0, 0);
    pthread_mutex_unlock(&lock);
    return made;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int dir_fd, const char *path, int flags) { return removed(dir_fd, path, flags); }

static int linked(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    char full[PATH_MAX];
    struct stat st;
    if (!absolute(to_fd, to, full)) return REAL(linkat)(from_fd, from, to_fd, to, flags);
    if (fails(4)) return -1;
    pthread_mutex_lock(&lock);
    int made = REAL(linkat)(from_fd, from, to_fd, to, flags);
    if (!made && !lstat(full, &st)) tell('C', st.st_ino, 0, 0, 0, full, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return made;
}
int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    return linked(from_fd, from, to_fd, to, flags);
}

static int made_folder(int dir_fd, const char *path, mode_t mode) {
    char full[PATH_MAX];
    struct stat st;
    int ours = absolute(dir_fd, path, full);
    if (ours && fails(4)) return -1;
    pthread_mutex_lock(&lock);
    int made = REAL(mkdirat)(dir_fd, path, mode);
    if (ours && !made && !lstat(full, &st)) tell('M', st.st_ino, 0, 0, 0, full, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return made;
}
int mkdir(const char *path, mode_t mode) { return made_folder(AT_FDCWD, path, mode); }
int mkdirat(int dir_fd, const char *path, mode_t mode) { return made_folder(dir_fd, path, mode); }

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    (void)from, (void)a, (void)to, (void)b, (void)size, (void)flags;
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    (void)to, (void)from, (void)offset, (void)size;
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    (void)to, (void)from, (void)offset, (void)size;
    errno = EINVAL;
    return -1;
}
