// Runs the scenarios.
//
//   scenarios                            each under --seeds=N seeds
//   ($SCENARIO_SEEDS, or 200) scenarios --scenario=NAME --seed=N   one run:
//   replays a failure scenarios --soak=SECONDS             any number of seeds,
//   from now on scenarios --faults                   each with every call
//   failing once scenarios --list                     their names
//
// GoogleTest's own options work beside these (--gtest_filter, --gtest_shuffle).
// --first-seed=N begins elsewhere.

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "Child.h"
#include "FaultSweep.h"
#include "Scenario.h"

namespace scenarios {

std::vector<Scenario>& allScenarios() {
    static std::vector<Scenario> all;
    return all;
}

bool addScenario(const char* name, void (*body)(Run&), bool threads) {
    allScenarios().push_back({name, body, threads});
    return true;
}

namespace {

std::string program;
uint64_t runs = 0;
// What runs now, for the handler of signals.
const char* currentName = "";
uint64_t currentSeed = 0;

void printReplay(int signal) {
    if (!*currentName) {
        // A child of the fault sweep; its parent says which.
        ::signal(signal, SIG_DFL);
        raise(signal);
        return;
    }
    char text[512];
    const int length = snprintf(
            text,
            sizeof(text),
            "\nscenario %s, seed %llu: %s\nreplay: %s --scenario=%s "
            "--seed=%llu\n",
            currentName,
            static_cast<unsigned long long>(currentSeed),
            signal == SIGALRM ? "does not end" : strsignal(signal),
            program.c_str(),
            currentName,
            static_cast<unsigned long long>(currentSeed));
    [[maybe_unused]] auto written = write(STDERR_FILENO, text, length);
    _exit(1);
}

/// The empty string if all is well.
std::string runOnce(const Scenario& scenario, uint64_t seed) {
    currentName = scenario.name;
    currentSeed = seed;
    alarm(60);
    std::string problem;
    try {
        Run run(seed);
        scenario.body(run);
        run.end();
    } catch (const std::exception& e) {
        problem = e.what();
    }
    alarm(0);
    if (!problem.empty()) {
        problem = "seed " + std::to_string(seed) + ": " + problem +
                  "\nreplay: " + program + " --scenario=" + scenario.name +
                  " --seed=" + std::to_string(seed) + "\n";
    }
    return problem;
}

Ended seedsInChild(const Scenario& scenario, uint64_t first, uint64_t count) {
    runs += count;
    // Each run has its own limit.
    return inChild(0, [&](std::string& problem) {
        for (uint64_t seed = first; seed < first + count; ++seed) {
            problem = runOnce(scenario, seed);
            if (!problem.empty()) {
                return 1;
            }
        }
        return 0;
    });
}

class SeedsTest : public ::testing::Test {
   public:
    SeedsTest(const Scenario& scenario, uint64_t first, uint64_t count)
            : scenario_(scenario), first_(first), count_(count) {}

    void TestBody() override {
        const Ended child = seedsInChild(scenario_, first_, count_);
        if (child.status != 0) {
            FAIL() << child.text;
        }
    }

   private:
    const Scenario scenario_;
    const uint64_t first_;
    const uint64_t count_;
};

class FaultsTest : public ::testing::Test {
   public:
    explicit FaultsTest(const Scenario& scenario) : scenario_(scenario) {}
    void TestBody() override {
        const std::string problem = sweepFaults(scenario_, program);
        if (!problem.empty()) {
            FAIL() << problem;
        }
    }

   private:
    const Scenario scenario_;
};

int soak(int seconds, uint64_t seed) {
    constexpr uint64_t kAtOnce = 100;
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::seconds(seconds);
    for (;; seed += kAtOnce) {
        for (const Scenario& scenario : allScenarios()) {
            if (Clock::now() > end) {
                printf("%llu runs, none failed\n",
                       static_cast<unsigned long long>(runs));
                return 0;
            }
            const Ended child = seedsInChild(scenario, seed, kAtOnce);
            if (child.status != 0) {
                std::cerr << scenario.name << ": " << child.text;
                return 1;
            }
        }
    }
}

} // namespace

} // namespace scenarios

int main(int argc, char** argv) {
    using namespace scenarios;
    // One thread of OpenMP: the oracle's vectors are few, and a run is to be
    // the same whoever starts it. OpenMP reads the variable before main.
    if (!getenv("OMP_NUM_THREADS")) {
        setenv("OMP_NUM_THREADS", "1", 1);
        execv("/proc/self/exe", argv);
    }
    program = argv[0];
    ::testing::InitGoogleTest(&argc, argv);

    std::string name;
    uint64_t seed = 0;
    uint64_t first = 1;
    uint64_t seeds = 200;
    if (const char* asked = getenv("SCENARIO_SEEDS")) {
        seeds = std::stoull(asked);
    }
    int seconds = 0;
    bool faults = false;
    bool list = false;
    Fault fault;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const auto value =
                option.substr(std::min(option.size(), option.find('=') + 1));
        const auto is = [&](const char* key) {
            return option.rfind(key, 0) == 0;
        };
        if (is("--scenario=")) {
            name = value;
        } else if (is("--seed=")) {
            seed = std::stoull(value);
        } else if (is("--seeds=")) {
            seeds = std::stoull(value);
        } else if (is("--first-seed=")) {
            first = std::stoull(value);
        } else if (is("--soak=")) {
            seconds = std::stoi(value);
        } else if (is("--fault=")) {
            fault = Fault::parse(value);
        } else if (option == "--faults") {
            faults = true;
        } else if (option == "--list") {
            list = true;
        } else {
            std::cerr << "unknown option " << option << "\n";
            return 2;
        }
    }
    auto& all = allScenarios();
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return strcmp(a.name, b.name) < 0;
    });
    for (int signal : {SIGALRM, SIGABRT}) {
        ::signal(signal, printReplay);
    }
    if (list) {
        for (const Scenario& scenario : all) {
            puts(scenario.name);
        }
        return 0;
    }
    if (seconds > 0) {
        return soak(seconds, static_cast<uint64_t>(time(nullptr)) * 1000);
    }
    if (!name.empty()) {
        for (const Scenario& scenario : all) {
            if (name == scenario.name) {
                const std::string problem =
                        fault.kind != Fault::None
                                ? runWithFault(scenario, seed, fault)
                                : runOnce(scenario, seed);
                std::cout << (problem.empty() ? "right\n" : problem + "\n");
                return problem.empty() ? 0 : 1;
            }
        }
        std::cerr << "no scenario " << name << "; see --list\n";
        return 2;
    }
    for (const Scenario& scenario : all) {
        ::testing::RegisterTest(
                faults ? "Faults" : "Scenarios",
                scenario.name,
                nullptr,
                nullptr,
                __FILE__,
                __LINE__,
                [=]() -> ::testing::Test* {
                    if (faults) {
                        return new FaultsTest(scenario);
                    }
                    return new SeedsTest(scenario, first, seeds);
                });
    }
    const int status = RUN_ALL_TESTS();
    if (faults) {
        printf("%zu scenarios, %llu faults injected, %llu of them in Faiss' "
               "own "
               "work, where it aborts\n",
               all.size(),
               static_cast<unsigned long long>(faultsInjected()),
               static_cast<unsigned long long>(abortsOfFaiss()));
    } else {
        printf("%zu scenarios, %llu runs\n",
               all.size(),
               static_cast<unsigned long long>(runs));
    }
    return status;
}
