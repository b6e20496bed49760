// For ThreadSanitizer of g++ 12, which does not know the C library's
// pthread_mutex_clocklock, by which std::timed_mutex waits for a time: it would
// take the mutex for one that nobody has locked. This one is in its place, made
// of functions that it knows.

#include <pthread.h>
#include <time.h>

extern "C" int pthread_mutex_clocklock(
        pthread_mutex_t* mutex, clockid_t clock, const timespec* latest) {
    timespec now;
    timespec realNow;
    clock_gettime(clock, &now);
    clock_gettime(CLOCK_REALTIME, &realNow);
    constexpr long kSecond = 1000000000;
    timespec until;
    until.tv_sec = realNow.tv_sec + latest->tv_sec - now.tv_sec;
    until.tv_nsec = realNow.tv_nsec + latest->tv_nsec - now.tv_nsec;
    for (; until.tv_nsec < 0; until.tv_nsec += kSecond) {
        --until.tv_sec;
    }
    for (; until.tv_nsec >= kSecond; until.tv_nsec -= kSecond) {
        ++until.tv_sec;
    }
    return pthread_mutex_timedlock(mutex, &until);
}
