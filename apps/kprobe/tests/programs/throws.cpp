// throws SCENARIO: exceptions through probed functions.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <execinfo.h>
#include <functional>
#include <pthread.h>
#include <stdexcept>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define PROBED extern "C" __attribute__((noipa))

static std::atomic<long> hop_calls, skip_calls;
static bool quiet = false;

// Two probed functions; both have nothing to clean up, so that the unwinder passes straight through.
PROBED void hop(void (*next)(void *), void *argument)
{
    hop_calls.fetch_add(1, std::memory_order_relaxed);
    next(argument);
    asm volatile("" ::: "memory");
}
PROBED void skip(void (*next)(void *), void *argument)
{
    skip_calls.fetch_add(1, std::memory_order_relaxed);
    next(argument);
    asm volatile("" ::: "memory");
}

static void report()
{
    printf("calls hop=%ld\ncalls skip=%ld\n", hop_calls.load(), skip_calls.load());
}

struct Noisy {
    const char *name;
    ~Noisy()
    {
        if (!quiet)
            printf("destroyed %s\n", name);
    }
};

static void thrower(void *)
{
    Noisy noisy{"thrower"};
    throw std::runtime_error("thrown");
}
static void between(void *)
{
    Noisy noisy{"between"};
    hop(thrower, nullptr);
}
static void rethrower(void *)
{
    try {
        hop(between, nullptr);
    } catch (const std::exception &error) {
        printf("rethrow %s\n", error.what());
        throw;
    }
}
static void catcher(void *)
{
    try {
        hop(rethrower, nullptr);
    } catch (const std::exception &error) {
        printf("caught %s\n", error.what());
    }
}

static void nested()
{
    for (int i = 0; i < 10; i++)
        skip(catcher, nullptr);
    report();
}

static void nested_in_destructor_order()
{
    struct Throwing {
        ~Throwing()
        {
            try {
                hop(thrower, nullptr);
            } catch (const std::exception &) {
                puts("caught inside a destructor");
            }
        }
    };
    for (int i = 0; i < 5; i++)
        try {
            skip([](void *) { Throwing inside; hop(thrower, nullptr); }, nullptr);
        } catch (const std::exception &) {
            puts("caught outside");
        }
    report();
}

// A random walk of calls, throws, catches, rethrows and backtraces, the same one for the same seed.
static unsigned next_random(unsigned *state) { return (*state = *state * 1103515245 + 12345) >> 16; }
static void walk(void *argument)
{
    unsigned *state = static_cast<unsigned *>(argument);
    unsigned dice = next_random(state);
    if (dice % 4 == 0)
        return;
    if (dice % 7 == 0)
        throw dice;
    if (dice % 5 == 0) {
        try {
            hop(walk, state);
        } catch (unsigned) {
            if (dice & 64)
                throw;
        }
        skip(walk, state);
        return;
    }
    Noisy noisy{"walk"};
    hop(walk, state);
    if (dice & 32)
        skip(walk, state);
}
static void walks(unsigned seed, unsigned *result)
{
    unsigned state = seed;
    for (int i = 0; i < 3000; i++) {
        try {
            skip(walk, &state);
        } catch (unsigned thrown) {
            *result = *result * 31 + thrown;
        }
        if (i % 64 == 0) {
            void *frames[8];
            *result += unsigned(backtrace(frames, 8) > 0);
        }
    }
    *result ^= state;
}
static void fuzz()
{
    unsigned results[4] = {};
    std::vector<std::thread> threads;
    quiet = true;
    for (unsigned i = 0; i < 4; i++)
        threads.emplace_back(walks, i + 1, &results[i]);
    for (auto &thread : threads)
        thread.join();
    printf("results %u %u %u %u\n", results[0], results[1], results[2], results[3]);
    report();
}

static void thread_ended_inside(void *(*body)(void *), bool cancel)
{
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, nullptr, body, nullptr);
        if (cancel)
            pthread_cancel(thread);
        pthread_join(thread, &result);
        printf("joined %ld\n", reinterpret_cast<long>(result));
    }
    report();
}
static void thread_exit()
{
    thread_ended_inside([](void *) -> void * {
        Noisy base{"base"};
        hop([](void *) { Noisy noisy{"inside"}; pthread_exit(reinterpret_cast<void *>(7)); }, nullptr);
        return nullptr;
    }, false);
}
static void thread_cancel()
{
    thread_ended_inside([](void *) -> void * {
        Noisy base{"base"};
        int old;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
        hop([](void *) {
            Noisy noisy{"inside"};
            int before;
            pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
            for (;;)
                pause();
        }, nullptr);
        return nullptr;
    }, true);
}

// An exception inside a coroutine, caught there; then one that starts on another thread.
static ucontext_t boss, coroutine;
static void start(void (*body)())
{
    getcontext(&coroutine);
    coroutine.uc_stack.ss_sp = malloc(65536);
    coroutine.uc_stack.ss_size = 65536;
    makecontext(&coroutine, body, 0);
}
static void coroutine_throw()
{
    for (int i = 0; i < 5; i++)
        hop([](void *) {
            start([] { catcher(nullptr); swapcontext(&coroutine, &boss); });
            swapcontext(&boss, &coroutine);
        }, nullptr);
    report();
}
static void coroutine_moves_and_throws()
{
    for (int i = 0; i < 5; i++) {
        start([] {
            try {
                hop([](void *) { swapcontext(&coroutine, &boss); throw std::runtime_error("moved"); }, nullptr);
            } catch (const std::exception &error) {
                printf("caught %s\n", error.what());
            }
            swapcontext(&coroutine, &boss);
        });
        swapcontext(&boss, &coroutine);
        std::thread([] { swapcontext(&boss, &coroutine); }).join();
    }
    report();
}

// A fault whose handler, on its own stack, throws out of the faulting function (-fnon-call-exceptions).
static void throw_from_handler(int)
{
    skip([](void *) { throw 9; }, nullptr);
}
static void fault(void *)
{
    Noisy noisy{"faulting"};
    volatile int *volatile nowhere = nullptr;
    *nowhere = 1;
}
static void alternate_stack()
{
    stack_t stack = {};
    stack.ss_size = 65536;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_handler = throw_from_handler;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    for (int i = 0; i < 5; i++)
        try {
            hop(fault, nullptr);
        } catch (int value) {
            printf("caught %d\n", value);
        }
    report();
}

static void uncaught()
{
    std::set_terminate([] { puts("terminate"); report(); fflush(stdout); _exit(3); });
    hop(thrower, nullptr);
}

int main(int argc, char **argv)
{
    const std::pair<const char *, void (*)()> scenarios[] = {
        {"nested", nested},
        {"nested_in_destructor_order", nested_in_destructor_order},
        {"fuzz", fuzz},
        {"thread_exit", thread_exit},
        {"thread_cancel", thread_cancel},
        {"coroutine_throw", coroutine_throw},
        {"coroutine_moves_and_throws", coroutine_moves_and_throws},
        {"alternate_stack", alternate_stack},
        {"uncaught", uncaught},
    };
    for (const auto &[name, run] : scenarios)
        if (argc > 1 && !strcmp(argv[1], name)) {
            run();
            return 0;
        }
    return 2;
}
