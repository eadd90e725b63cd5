/* libc: more than two hundred functions of the C library, called with a deterministic result each.
 * Everything is folded into one printed checksum a group. */
#define _GNU_SOURCE
#include <argz.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <envz.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <glob.h>
#include <iconv.h>
#include <inttypes.h>
#include <langinfo.h>
#include <libgen.h>
#include <locale.h>
#include <malloc.h>
#include <netinet/ether.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <search.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

static unsigned long sum;
static void number(long value) { sum = sum * 1000003 + (unsigned long)value; }
static void text(const char *value)
{
    for (; value && *value; value++)
        number(*value);
}
static void group(const char *name)
{
    printf("%s %lx\n", name, sum);
    sum = 0;
}

static void characters(void)
{
    int (*const volatile of_char[])(int) = {isalnum, isalpha, isblank, iscntrl, isdigit, isgraph, islower, isprint,
                                            ispunct, isspace, isupper, isxdigit, tolower, toupper, isascii, toascii};
    int (*const volatile of_wide[])(wint_t) = {iswalnum, iswalpha, iswblank, iswcntrl, iswdigit, iswgraph,
                                               iswlower, iswprint, iswpunct, iswspace, iswupper, iswxdigit};
    for (size_t i = 0; i < sizeof of_char / sizeof *of_char; i++)
        for (int c = 0; c < 128; c += 7)
            number(i < 12 ? !!of_char[i](c) : of_char[i](c));
    for (size_t i = 0; i < sizeof of_wide / sizeof *of_wide; i++)
        for (wint_t c = 0; c < 300; c += 7)
            number(!!of_wide[i](c));
    number(towlower(L'A') + towupper(L'b'));
    number(!!iswctype(L'a', wctype("alpha")) + (long)towctrans(L'a', wctrans("toupper")));
    group("characters");
}

static void strings(void)
{
    char buffer[128] = "a,b;c d,e", *state = 0, *rest = buffer;
    for (char *token = strtok_r(buffer, ",;", &state); token; token = strtok_r(0, ",;", &state))
        text(token);
    strcpy(buffer, "x:y::z");
    for (char *part; (part = strsep(&rest, ":"));)
        text(part), number(1);
    strcpy(buffer, "one two");
    text(strtok(buffer, " "));
    char *copy = strdup("duplicate"), *short_copy = strndup("duplicate", 4);
    text(copy), text(short_copy);
    free(copy), free(short_copy);
    number(strcoll("a", "b") < 0);
    number((long)strxfrm(buffer, "transformed", sizeof buffer)), text(buffer);
    text(strerror(ENOENT)), text(strerror_r(EACCES, buffer, sizeof buffer)), text(strsignal(SIGTERM));
    text(strerrorname_np(EPERM)), text(sigabbrev_np(SIGINT));
    memccpy(buffer, "until:here", ':', 10), text(buffer);
    memfrob(buffer, 4), memfrob(buffer, 4), text(buffer);
    number((char *)memmem("haystack", 8, "st", 2) != 0);
    number(strverscmp("a9", "a10")), number(ffs(40)), number(ffsll(1LL << 40));
    number(rpmatch("y")), text(basename("/usr/lib/x")), strcpy(buffer, "/usr/lib/x"), text(dirname(buffer));
    swab("abcdef", buffer, 6), text(buffer);
    char *argz = 0;
    size_t length = 0;
    argz_create_sep("b:c:d", ':', &argz, &length), argz_add(&argz, &length, "e"), argz_insert(&argz, &length, argz, "a");
    number((long)argz_count(argz, length)), argz_stringify(argz, length, '-'), text(argz), free(argz);
    argz = 0, length = 0;
    envz_add(&argz, &length, "k", "v"), text(envz_get(argz, length, "k")), free(argz);
    group("strings");
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static int by_value_r(const void *a, const void *b, void *sign) { return *(int *)sign * by_value(a, b); }
static void visit(const void *node, VISIT order, int depth)
{
    if (order == postorder || order == leaf)
        number(**(int *const *)node + depth);
}
static void nothing(void *node) { (void)node; }

static void numbers(void)
{
    int values[50], sign = -1, key = 77;
    char *end;
    number(atoi("42")), number(atol("-43")), number(atoll("44")), number((long)(atof("1.5") * 8));
    number(strtol("0x1f", &end, 0)), number((long)strtoul("777", &end, 8)), number(strtoll("-9", &end, 10));
    number((long)strtoull("ff", &end, 16)), number((long)(strtod("2.25e3", &end) * 4)), number((long)(strtof("0.125", 0) * 8));
    number((long)(strtold("1e5", 0))), number(strtoimax("12", 0, 10)), number((long)strtoumax("13", 0, 10));
    number((long)wcstol(L"99", 0, 10)), number((long)(wcstod(L"1.25", 0) * 4)), number((long)wcstoul(L"98", 0, 10));
    srand(1), number(rand()), srandom(2), number(random()), srand48(3), number(lrand48()), number(mrand48());
    number((long)(drand48() * 1e9));
    unsigned short seed[3] = {1, 2, 3};
    number(nrand48(seed)), number(jrand48(seed)), number((long)(erand48(seed) * 1e9)), seed48(seed);
    unsigned state = 5;
    number(rand_r(&state));
    for (int i = 0; i < 50; i++)
        values[i] = (i * 37 + 11) % 101;
    qsort(values, 50, sizeof *values, by_value);
    for (int i = 0; i < 50; i++)
        number(values[i]);
    number(bsearch(&key, values, 50, sizeof key, by_value) != 0);
    qsort_r(values, 50, sizeof *values, by_value_r, &sign), number(values[0]);
    size_t used = 50;
    number(lfind(&key, values, &used, sizeof key, by_value) != 0);
    div_t d = div(17, 5);
    ldiv_t l = ldiv(-17, 5);
    lldiv_t ll = lldiv(170, 7);
    imaxdiv_t im = imaxdiv(99, 8);
    number(d.quot * 10 + d.rem), number(l.quot * 10 + l.rem), number(ll.quot + ll.rem), number(im.quot + im.rem);
    text(l64a(123456)), number(a64l("abc"));
    int point, negative;
    char buffer[64];
    text(ecvt(3.14159, 6, &point, &negative)), text(fcvt(2.71828, 3, &point, &negative)), text(gcvt(1.5, 5, buffer));
    ecvt_r(1.25, 5, &point, &negative, buffer, sizeof buffer), text(buffer);
    void *root = 0;
    for (int i = 0; i < 20; i++)
        tsearch(&values[i], &root, by_value);
    number(tfind(&values[3], &root, by_value) != 0), twalk(root, visit), tdelete(&values[3], &root, by_value);
    tdestroy(root, nothing);
    hcreate(30);
    hsearch((ENTRY){.key = "k", .data = values}, ENTER), number(hsearch((ENTRY){.key = "k"}, FIND) != 0), hdestroy();
    struct element { struct element *next, *previous; } first = {0}, second = {0};
    insque(&first, 0), insque(&second, &first), number(first.next == &second), remque(&second), number(first.next == 0);
    group("numbers");
}

static void wide(void)
{
    wchar_t buffer[64];
    char narrow[64];
    mbstate_t state = {0};
    const char *source = "multibyte";
    number((long)mbstowcs(buffer, "narrow", 64)), number((long)wcstombs(narrow, L"wide", 64)), text(narrow);
    number(mblen("x", 1)), number(mbtowc(buffer, "y", 1)), number(wctomb(narrow, L'z'));
    number((long)mbsrtowcs(buffer, &source, 64, &state)), number((long)mbrtowc(buffer, "q", 1, &state));
    number((long)wcrtomb(narrow, L'w', &state)), number((long)mbrlen("v", 1, &state)), number(mbsinit(&state));
    number(btowc('a')), number(wctob(L'b')), number(swprintf(buffer, 64, L"%d-%ls", 5, L"w"));
    number(wcwidth(L'a')), number(wcswidth(L"abc", 3)), number(wcscasecmp(L"A", L"a")), number(wcscoll(L"a", L"b") < 0);
    wchar_t *copy = wcsdup(L"copy"), *position;
    number((long)wcslen(wcscat(wcscpy(buffer, copy), L"!"))), free(copy);
    number(wcsstr(buffer, L"p") - buffer), number((long)wcsspn(buffer, L"cop")), number((long)wcscspn(buffer, L"!"));
    number(wcstok(buffer, L"p", &position) != 0), number(wcspbrk(L"abc", L"c") != 0), number(wcsncmp(L"ab", L"ac", 1));
    group("wide");
}

static int scan(const char *string, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int got = vsscanf(string, format, list);
    va_end(list);
    return got;
}

static void streams(void)
{
    char *data = 0, buffer[256], *line = 0;
    size_t size = 0;
    FILE *out = open_memstream(&data, &size);
    int a, b;
    float f;
    fprintf(out, "%d %5.2f %s %#x %e %g %a\n", 12, 3.5, "text", 255, 1e10, 0.0001, 1.0);
    fputs("line two\n", out), fputc('c', out), putc('d', out), fwrite("block", 1, 5, out), fflush(out);
    number(ftell(out)), number(fileno(out)), number(ferror(out)), fclose(out);
    text(data);
    FILE *in = fmemopen(data, size, "r");
    setvbuf(in, 0, _IOFBF, 256);
    text(fgets(buffer, sizeof buffer, in)), number(fgetc(in)), number(ungetc('Z', in)), number(getc(in));
    size_t capacity = 0;
    number(getline(&line, &capacity, in)), text(line), number(getdelim(&line, &capacity, 'k', in)), free(line);
    rewind(in), number((long)fread(buffer, 1, 10, in)), fseek(in, 3, SEEK_SET), number(fscanf(in, "%f", &f));
    fseeko(in, 0, SEEK_END), number(ftello(in)), number(feof(in)), clearerr(in);
    fpos_t position;
    fgetpos(in, &position), fsetpos(in, &position), flockfile(in), funlockfile(in), fclose(in), free(data);
    number(sscanf("7 8", "%d %d", &a, &b) + a + b), number(scan("9 10", "%d %d", &a, &b) + a + b);
    number(sprintf(buffer, "%08.3f|%-6s|%+d", 2.5, "ab", 3)), text(buffer);
    number(snprintf(buffer, 5, "%s", "truncated")), text(buffer);
    char *allocated;
    number(asprintf(&allocated, "%zu", (size_t)77)), text(allocated), free(allocated);
    group("streams");
}

static void times(void)
{
    time_t when = 1000000000, back;
    struct tm parts, parsed = {0};
    char buffer[128];
    setenv("TZ", "UTC", 1), tzset();
    gmtime_r(&when, &parts), number(parts.tm_year), number(parts.tm_yday);
    localtime_r(&when, &parts), back = mktime(&parts), number(back), number(timegm(&parts));
    strftime(buffer, sizeof buffer, "%A %d %B %Y %H:%M:%S %j %U", &parts), text(buffer);
    strptime("2001-02-03 04:05:06", "%Y-%m-%d %H:%M:%S", &parsed), number(timegm(&parsed));
    text(asctime_r(&parts, buffer)), text(ctime_r(&when, buffer)), number((long)difftime(5, 3));
    text(asctime(gmtime(&when))), text(ctime(&when)), number(localtime(&when)->tm_hour), number(dysize(2000));
    struct timespec moment;
    number(clock_gettime(CLOCK_MONOTONIC, &moment)), number(clock_getres(CLOCK_REALTIME, &moment));
    number(nanosleep(&(struct timespec){0, 1000}, 0)), number(usleep(10)), number(time(0) > 0), number(clock() >= 0);
    struct timeval tv;
    number(gettimeofday(&tv, 0)), number(getitimer(ITIMER_REAL, &(struct itimerval){0}));
    group("times");
}

static void patterns(void)
{
    regex_t regex;
    regmatch_t match[3];
    glob_t found;
    char buffer[64], *option = "b=2", *value;
    char *const tokens[] = {"a", "b", 0};
    number(regcomp(&regex, "([a-z]+)-([0-9]*)", REG_EXTENDED)), number(regexec(&regex, "xx abc-123", 3, match, 0));
    number(match[1].rm_so * 100 + match[2].rm_eo), number((long)regerror(REG_NOMATCH, &regex, buffer, sizeof buffer));
    text(buffer), regfree(&regex), number(fnmatch("*.c", "x.c", 0)), number(fnmatch("[a-c]?", "d", 0));
    number(glob("/proc/self/c[m]dline", 0, 0, &found)), number((long)found.gl_pathc), globfree(&found);
    number(getsubopt(&option, tokens, &value)), text(value);
    char *arguments[] = {"program", "-a", "-b", "value", "--long", "rest", 0};
    struct option longs[] = {{"long", 0, 0, 'l'}, {0}};
    for (int c; (c = getopt_long(6, arguments, "ab:", longs, 0)) != -1;)
        number(c), text(optarg);
    optind = 1, number(getopt(2, arguments, "a"));
    group("patterns");
}

static void network(void)
{
    struct in_addr address;
    struct in6_addr six;
    char buffer[64];
    int ends[2];
    number(inet_addr("1.2.3.4")), number(inet_aton("5.6.7.8", &address)), text(inet_ntoa(address));
    number(inet_pton(AF_INET6, "fe80::1", &six)), text(inet_ntop(AF_INET6, &six, buffer, sizeof buffer));
    number(inet_network("10.1.2.3")), number(inet_lnaof(address)), number(inet_netof(address));
    number(inet_makeaddr(10, 5).s_addr), number(ntohs(0x1234)), number(htonl(0x12345678));
    struct ether_addr *ether = ether_aton("1:2:3:4:5:6");
    text(ether_ntoa(ether));
    number(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)), number(send(ends[0], "data", 4, 0)), number(recv(ends[1], buffer, 4, 0));
    number(shutdown(ends[0], SHUT_WR)), close(ends[0]), close(ends[1]);
    group("network");
}

static void files(void)
{
    char name[] = "/tmp/kprobe-libc-XXXXXX", buffer[256], other[64];
    struct stat status;
    int ends[2];
    number(mkdtemp(name) != 0), number(chdir(name)), number(getcwd(buffer, sizeof buffer) != 0);
    int fd = open("file", O_CREAT | O_RDWR, 0600);
    number(write(fd, "contents", 8)), number(lseek(fd, 2, SEEK_SET)), number(read(fd, buffer, 3)), number(pread(fd, buffer, 2, 1));
    number(pwrite(fd, "P", 1, 0)), number(ftruncate(fd, 5)), number(fstat(fd, &status)), number(status.st_size);
    number(fsync(fd)), number(fchmod(fd, 0640)), number(fcntl(fd, F_GETFL) & O_RDWR), number(posix_fallocate(fd, 0, 16));
    struct iovec vectors[2] = {{"ab", 2}, {"cd", 2}};
    number(writev(fd, vectors, 2)), lseek(fd, 0, SEEK_SET), vectors[0].iov_base = buffer, vectors[1].iov_base = other;
    number(readv(fd, vectors, 2)), number(isatty(fd)), number(lockf(fd, F_LOCK, 0)), number(lockf(fd, F_ULOCK, 0));
    void *map = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    number(*(char *)map), number(msync(map, 4096, MS_SYNC)), number(madvise(map, 4096, MADV_NORMAL)), number(munmap(map, 4096));
    int copy = dup(fd);
    number(dup2(copy, copy)), number(close(copy)), number(close(fd)), number(stat("file", &status)), number(access("file", R_OK));
    number(chmod("file", 0600)), number(link("file", "hard")), number(symlink("file", "soft")), number(lstat("soft", &status));
    number(readlink("soft", buffer, sizeof buffer)), number(rename("hard", "moved")), number(truncate("moved", 3));
    number(mkdir("sub", 0700)), number(rmdir("sub")), number(mkfifo("fifo", 0600)), number((long)umask(022));
    char *real = realpath("soft", 0);
    number(real != 0), free(real);
    DIR *directory = opendir(".");
    long entries = 0;
    while (readdir(directory))
        entries++;
    rewinddir(directory), number(entries), number(dirfd(directory) > 0), closedir(directory);
    struct dirent **list;
    int listed = scandir(".", &list, 0, alphasort);
    for (int i = 0; i < listed; i++)
        text(list[i]->d_name), free(list[i]);
    free(list);
    remove("fifo"), unlink("moved"), unlink("soft"), remove("file"), number(chdir("/")), number(rmdir(name));
    FILE *temporary = tmpfile();
    number(fputs("t", temporary)), fclose(temporary);
    number(pipe(ends)), number(write(ends[1], "p", 1));
    struct pollfd poller = {ends[0], POLLIN, 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    number(poll(&poller, 1, 100)), number(select(ends[0] + 1, &set, 0, 0, &(struct timeval){0, 0}));
    close(ends[0]), close(ends[1]);
    int event = eventfd(3, 0);
    eventfd_t got;
    number(eventfd_read(event, &got)), number((long)got), number(eventfd_write(event, 4)), close(event);
    group("files");
}

static void process(void)
{
    sigset_t set;
    struct rlimit limit;
    struct rusage usage;
    struct utsname names;
    int status;
    sigemptyset(&set), sigaddset(&set, SIGUSR1), number(sigismember(&set, SIGUSR1)), sigdelset(&set, SIGUSR1);
    sigfillset(&set), number(sigisemptyset(&set)), number(sigprocmask(SIG_BLOCK, 0, &set)), number(sigpending(&set));
    number(getpid() > 0), number(getppid() > 0), number(geteuid() == getuid());
    number(getgid() == getegid()), number(getpgrp() > 0), number(getpgid(0) > 0), number(getsid(0) > 0);
    number(getrlimit(RLIMIT_NOFILE, &limit)), number(getrusage(RUSAGE_SELF, &usage)), number(uname(&names));
    number(sysconf(_SC_PAGESIZE)), number(pathconf("/", _PC_NAME_MAX)), number((long)confstr(_CS_PATH, 0, 0) > 0);
    number(getpagesize()), number(getpriority(PRIO_PROCESS, 0) < 100), number(sched_yield()), number(gettid() > 0);
    number(setenv("K", "v", 1)), text(getenv("K")), number(unsetenv("K")), number(putenv("L=m")), text(getenv("L"));
    text(secure_getenv("L")), number(getloadavg((double[1]){0}, 1)), number(gethostid() != 0x7ffffffffffffff);
    pid_t child = fork();
    if (!child)
        _exit(5);
    number(waitpid(child, &status, 0) == child), number(WEXITSTATUS(status));
    char *old = setlocale(LC_ALL, "C");
    text(old), text(localeconv()->decimal_point), text(nl_langinfo(DAY_1));
    iconv_t converter = iconv_open("UTF-16LE", "UTF-8");
    char in[] = "conv", out[32], *from = in, *to = out;
    size_t left = 4, room = 32;
    number((long)iconv(converter, &from, &left, &to, &room)), number((long)room), iconv_close(converter);
    group("process");
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int shared;
static void at_once(void) { number(1); }
static void *worker(void *argument)
{
    pthread_mutex_lock(&mutex);
    shared = 1;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
    return argument;
}

static void threads(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    pthread_key_t key;
    pthread_barrier_t barrier;
    pthread_spinlock_t spin;
    sem_t semaphore;
    void *result;
    pthread_attr_init(&attributes), pthread_attr_setstacksize(&attributes, 1 << 18);
    pthread_create(&thread, &attributes, worker, &shared), pthread_attr_destroy(&attributes);
    pthread_mutex_lock(&mutex);
    while (!shared)
        pthread_cond_wait(&condition, &mutex);
    pthread_cond_broadcast(&condition), pthread_mutex_unlock(&mutex);
    pthread_join(thread, &result), number(result == &shared), number(pthread_mutex_trylock(&mutex)), pthread_mutex_unlock(&mutex);
    pthread_once(&once, at_once), pthread_once(&once, at_once), number(pthread_equal(pthread_self(), pthread_self()));
    number(pthread_rwlock_rdlock(&lock)), number(pthread_rwlock_unlock(&lock)), number(pthread_rwlock_wrlock(&lock));
    pthread_rwlock_unlock(&lock), number(pthread_key_create(&key, 0)), number(pthread_setspecific(key, &key));
    number(pthread_getspecific(key) == &key), number(pthread_key_delete(key));
    number(pthread_barrier_init(&barrier, 0, 1)), number(pthread_barrier_wait(&barrier)), number(pthread_barrier_destroy(&barrier));
    number(pthread_spin_init(&spin, 0)), number(pthread_spin_lock(&spin)), number(pthread_spin_unlock(&spin));
    number(sem_init(&semaphore, 0, 1)), number(sem_wait(&semaphore)), number(sem_trywait(&semaphore)), number(sem_post(&semaphore));
    int value;
    number(sem_getvalue(&semaphore, &value)), number(value), number(sem_destroy(&semaphore));
    group("threads");
}

static void memory(void)
{
    char *block = malloc(100);
    strcpy(block, "kept"), block = realloc(block, 5000), text(block), free(block);
    block = calloc(10, 10), number(block[99]), free(block);
    block = reallocarray(0, 10, 20), free(block);
    void *aligned = 0;
    number(posix_memalign(&aligned, 256, 100)), number((long)aligned % 256), free(aligned);
    aligned = aligned_alloc(64, 128), number((long)aligned % 64), free(aligned);
    for (int i = 0; i < 300; i++) {
        void *large = malloc((size_t)i * 1500);
        number(large != 0), free(large);
    }
    group("memory");
}

int main(void)
{
    characters();
    strings();
    numbers();
    wide();
    streams();
    times();
    patterns();
    network();
    files();
    process();
    threads();
    memory();
    return 0;
}
