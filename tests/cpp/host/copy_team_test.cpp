// Host copies made by several threads.

#include <faiss_ext/gpu/host/CopyTeam.h>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace {

using faiss_ext::gpu::CopyTeam;
using faiss_ext::gpu::HostCopy;
using faiss_ext::gpu::HostInterval;

constexpr size_t kPage = 4096;

std::vector<char> someBytes(size_t size) {
    std::vector<char> bytes(size);
    for (size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<char>(1 + i * 31 % 127);
    }
    return bytes;
}

/// Copies `sizes` bytes, one array behind the other with a gap, from and to odd
/// addresses; all of them must be there, and nothing around them touched.
void copyAndCheck(
        CopyTeam& team,
        const std::vector<size_t>& sizes,
        int threads,
        size_t chunkBytes,
        size_t offset) {
    size_t total = offset;
    for (size_t size : sizes) {
        total += size + 13;
    }
    const auto from = someBytes(total + 3);
    for (bool forGpu : {false, true}) {
        std::vector<char> to(total, 0);
        std::vector<char> expected(total, 0);
        std::vector<HostCopy> copies;
        size_t at = offset;
        for (size_t size : sizes) {
            copies.push_back(
                    {to.data() + at, from.data() + at + 3, size, forGpu});
            std::copy_n(from.data() + at + 3, size, expected.data() + at);
            at += size + 13;
        }
        team.copy(copies, threads, chunkBytes);
        EXPECT_TRUE(to == expected) << sizes.front() << " bytes at " << offset
                                    << ", " << threads << " threads, chunks of "
                                    << chunkBytes << ", for the GPU " << forGpu;
    }
}

/// The threads of all teams, which have a name.
std::set<std::string> teamThreads() {
    std::set<std::string> ids;
    for (const auto& task :
         std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream file(task.path() / "comm");
        std::string name;
        file >> name;
        if (name == "faiss_ext_copy") {
            ids.insert(task.path().filename());
        }
    }
    return ids;
}

/// A thread has its name a little after its start, and is gone a little after
/// its end.
bool thereAreThreads(size_t count) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::seconds(20);
    while (teamThreads().size() != count) {
        if (Clock::now() > end) {
            return false;
        }
    }
    return true;
}

/// Nanoseconds that a thread of this process has run.
uint64_t runTimeOf(const std::string& thread) {
    std::ifstream file("/proc/self/task/" + thread + "/schedstat");
    uint64_t nanoseconds = 0;
    file >> nanoseconds;
    return nanoseconds;
}

/// A copy that is shared among `threads`.
void copyPages(CopyTeam& team, int threads) {
    const auto from = someBytes(64 * kPage);
    std::vector<char> to(from.size());
    team.copy({{to.data(), from.data(), from.size()}}, threads, kPage);
    EXPECT_TRUE(to == from);
}

TEST(CopyTeam, every_byte_arrives_whatever_the_size_and_the_alignment) {
    CopyTeam team;
    for (int threads : {1, 2, 8}) {
        for (size_t size :
             {size_t(0),
              size_t(1),
              size_t(63),
              size_t(64),
              size_t(65),
              kPage - 1,
              kPage,
              kPage + 1,
              17 * kPage + 5}) {
            for (size_t offset : {0, 1, 63, 4095}) {
                for (size_t chunkBytes : {size_t(64), size_t(100), kPage}) {
                    copyAndCheck(team, {size}, threads, chunkBytes, offset);
                    copyAndCheck(
                            team,
                            {size, 0, size / 2},
                            threads,
                            chunkBytes,
                            offset);
                }
            }
        }
    }
    copyAndCheck(team, {3 * kPage}, 1000, 1, 5);
    team.copy({}, 8, kPage);
}

TEST(CopyTeam, every_byte_that_is_copied_ahead_arrives) {
    CopyTeam team;
    const auto from = someBytes(100 * kPage + 7);
    EXPECT_EQ(team.copyAhead({}, 1, kPage), nullptr);
    for (int threads : {2, 3, 8}) {
        std::vector<char> to(from.size());
        std::vector<std::unique_ptr<CopyTeam::Ahead>> ahead;
        const auto begin = HostInterval::Clock::now();
        // Odd shares, each of two copies.
        for (size_t at = 0; at < from.size();) {
            const size_t bytes =
                    std::min(3 * kPage + at % 999, from.size() - at);
            const size_t half = bytes / 2;
            ahead.push_back(team.copyAhead(
                    {{to.data() + at, from.data() + at, half, true},
                     {to.data() + at + half,
                      from.data() + at + half,
                      bytes - half}},
                    threads,
                    kPage));
            at += bytes;
        }
        for (const auto& one : ahead) {
            one->finish();
            EXPECT_LE(begin, one->interval().begin);
            EXPECT_LT(one->interval().begin, one->interval().end);
            EXPECT_LE(one->interval().end, HostInterval::Clock::now());
        }
        EXPECT_TRUE(to == from) << threads << " threads";
    }
    team.copyAhead({}, 8, kPage)->finish();
}

TEST(CopyTeam, of_an_interval_what_comes_after_a_moment_is_never_negative) {
    const auto at = [](int ms) {
        return HostInterval::Clock::time_point(std::chrono::milliseconds(ms));
    };
    const HostInterval interval{at(3), at(5)};
    for (auto [moment, begin, end] :
         {std::tuple(2, 3, 5), {3, 3, 5}, {4, 4, 5}, {6, 6, 6}}) {
        EXPECT_EQ(interval.after(at(moment)).begin, at(begin)) << moment;
        EXPECT_EQ(interval.after(at(moment)).end, at(end)) << moment;
    }
}

TEST(CopyTeam, nothing_touches_what_was_to_be_copied_ahead_when_it_is_dropped) {
    CopyTeam team;
    for (int round = 0; round < 200; ++round) {
        const auto from = std::make_unique<std::vector<char>>(64 * kPage);
        const auto to = std::make_unique<std::vector<char>>(from->size());
        const auto first = team.copyAhead(
                {{to->data(), from->data(), from->size() / 2}}, 4, kPage);
        team.copyAhead(
                {{to->data() + from->size() / 2,
                  from->data() + from->size() / 2,
                  from->size() / 2}},
                4,
                kPage);
        // For the sanitizers: freed at once.
    }
}

TEST(CopyTeam, many_callers_at_once) {
    CopyTeam team;
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 6; ++caller) {
        callers.emplace_back([&team, caller] {
            for (int round = 0; round < 200; ++round) {
                copyAndCheck(
                        team,
                        {size_t(5000 + 97 * round), size_t(100)},
                        1 + caller,
                        256,
                        caller);
            }
        });
    }
    for (auto& caller : callers) {
        caller.join();
    }
}

TEST(CopyTeam, starts_as_many_threads_as_are_of_use_and_ends_them) {
    ASSERT_TRUE(thereAreThreads(0));
    {
        CopyTeam team;
        copyPages(team, 4);
        EXPECT_TRUE(thereAreThreads(3));
        copyPages(team, 2);
        copyPages(team, 4);
        EXPECT_TRUE(thereAreThreads(3));
        copyPages(team, 6);
        EXPECT_TRUE(thereAreThreads(5));
    }
    EXPECT_TRUE(thereAreThreads(0));
}

TEST(CopyTeam, a_small_copy_starts_no_thread) {
    ASSERT_TRUE(thereAreThreads(0));
    CopyTeam team;
    copyAndCheck(team, {kPage - 1}, 8, 1 << 30, 0);
    copyAndCheck(team, {64 * kPage}, 1, kPage, 0);
    // The results of one query: small, whatever the number of arrays.
    copyAndCheck(team, {80, 40, 80, 40}, 8, kPage, 0);
    // Had one of these started threads, there would be more now.
    copyPages(team, 2);
    EXPECT_TRUE(thereAreThreads(1));
}

TEST(CopyTeam, its_threads_take_part_again_and_again) {
    CopyTeam team;
    copyPages(team, 2);
    ASSERT_TRUE(thereAreThreads(1));
    const auto others = teamThreads();
    const std::string worker = *others.begin();
    const uint64_t enough = runTimeOf(worker) + 2000000;
    const auto end =
            std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (runTimeOf(worker) < enough) {
        ASSERT_LT(std::chrono::steady_clock::now(), end);
        copyPages(team, 2);
    }
}

#ifndef __SANITIZE_THREAD__
#ifndef __SANITIZE_ADDRESS__

/// Pages that whoever reads them is held at, until all are let go.
class HeldPages {
   public:
    explicit HeldPages(size_t count)
            : bytes_(count * kPage),
              pages_(
                      mmap(nullptr,
                           bytes_,
                           PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS,
                           -1,
                           0)) {
        readers_ = 0;
        letGo_ = false;
        struct sigaction held = {};
        held.sa_handler = hold;
        sigaction(SIGSEGV, &held, &before_);
    }
    ~HeldPages() {
        sigaction(SIGSEGV, &before_, nullptr);
        munmap(pages_, bytes_);
    }

    const char* page(size_t i) const {
        return static_cast<const char*>(pages_) + i * kPage;
    }

    /// Whether so many threads are held, at once, within a while.
    static bool hold(int threads, std::chrono::milliseconds within) {
        const auto end = std::chrono::steady_clock::now() + within;
        while (readers_ < threads && std::chrono::steady_clock::now() < end) {
            std::this_thread::yield();
        }
        return readers_ >= threads;
    }

    void letGo() {
        mprotect(pages_, bytes_, PROT_READ);
        letGo_ = true;
    }

   private:
    /// The read is made again when this returns.
    static void hold(int) {
        ++readers_;
        while (!letGo_) {
            usleep(100);
        }
    }

    static inline std::atomic<int> readers_{0};
    static inline std::atomic<bool> letGo_{false};
    const size_t bytes_;
    void* const pages_;
    struct sigaction before_ = {};
};

TEST(CopyTeam, each_copy_has_the_threads_that_it_asked_for) {
    using std::chrono::milliseconds;
    CopyTeam team;
    copyPages(team, 6);
    HeldPages held(8);
    alignas(kPage) static char to[8 * kPage];
    std::vector<std::thread> callers;
    for (int threads : {2, 4}) {
        // Four pages each, and one thread for each page at the most.
        const size_t first = threads == 2 ? 0 : 4;
        callers.emplace_back([&, threads, first] {
            team.copy(
                    {{to + first * kPage, held.page(first), 4 * kPage}},
                    threads,
                    kPage);
        });
        const int all = threads == 2 ? 2 : 6;
        EXPECT_TRUE(held.hold(all, milliseconds(20000)));
        EXPECT_FALSE(held.hold(all + 1, milliseconds(50)));
    }
    held.letGo();
    for (auto& caller : callers) {
        caller.join();
    }
}

TEST(CopyTeam, copies_ahead_while_the_caller_goes_on) {
    using std::chrono::milliseconds;
    CopyTeam team;
    HeldPages held(8);
    alignas(kPage) static char to[8 * kPage];
    // One page: all by one thread that is not the caller's.
    const auto first = team.copyAhead({{to, held.page(0), kPage}}, 4, kPage);
    EXPECT_TRUE(held.hold(1, milliseconds(20000)));
    // Those of the team that are left, and no more.
    const auto second =
            team.copyAhead({{to + kPage, held.page(1), 7 * kPage}}, 4, kPage);
    EXPECT_TRUE(held.hold(3, milliseconds(20000)));
    EXPECT_FALSE(held.hold(4, milliseconds(50)));
    // The caller is the fourth.
    std::thread finishing([&] { second->finish(); });
    EXPECT_TRUE(held.hold(4, milliseconds(20000)));
    held.letGo();
    finishing.join();
    first->finish();
}

TEST(CopyTeam, what_is_copied_ahead_and_dropped_is_left_undone) {
    CopyTeam team;
    HeldPages held(4);
    alignas(kPage) static char to[4 * kPage];
    std::fill(std::begin(to), std::end(to), 1);
    auto ahead = team.copyAhead({{to, held.page(0), sizeof(to)}}, 2, kPage);
    ASSERT_TRUE(held.hold(1, std::chrono::milliseconds(20000)));
    std::atomic<bool> dropped{false};
    std::thread dropping([&] {
        ahead.reset();
        dropped = true;
    });
    // A page is under way.
    EXPECT_FALSE(held.hold(2, std::chrono::milliseconds(50)));
    EXPECT_FALSE(dropped);
    held.letGo();
    dropping.join();
    EXPECT_EQ(std::count(std::begin(to), std::end(to), 0), kPage);
}

TEST(CopyTeam, copies_with_fewer_threads_where_none_can_be_started) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        CopyTeam team;
        const auto from = someBytes(64 * kPage);
        std::vector<char> to(from.size());
        // No room for the stacks of new threads.
        rlimit limit{};
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = 1;
        setrlimit(RLIMIT_AS, &limit);
        team.copy({{to.data(), from.data(), from.size()}}, 64, kPage);
        const bool copied = to == from;
        std::fill(to.begin(), to.end(), 0);
        team.copyAhead({{to.data(), from.data(), from.size()}}, 64, kPage)
                ->finish();
        _exit(copied && to == from ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

#endif
#endif

TEST(CopyTeam, a_forked_process_copies_alone) {
    auto team = std::make_unique<CopyTeam>();
    copyPages(*team, 4);
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        copyPages(*team, 4);
        EXPECT_EQ(team->copyAhead({}, 4, kPage), nullptr);
        team.reset();
        _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    copyPages(*team, 4);
}

} // namespace
