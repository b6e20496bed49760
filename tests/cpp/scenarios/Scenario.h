#pragma once

// The list of scenarios. A file of them has the form
//
//     SCENARIO(a_name_that_says_what_happens) {
//         auto index = Subject::make(run, {});
//         index->search(kAllPageable);
//     }
//
// and needs nothing else than its line in tests/CMakeLists.txt.

#include "Run.h"
#include "Subject.h"

namespace scenarios {

struct Scenario {
    const char* name;
    void (*body)(Run&);
    /// Several host threads: the order of their calls is not in the seed.
    bool threads;
};

std::vector<Scenario>& allScenarios();

bool addScenario(const char* name, void (*body)(Run&), bool threads);

#define SCENARIO_OF(name, threads)                          \
    static void name(::scenarios::Run& run);                \
    [[maybe_unused]] static const bool name##_ =            \
            ::scenarios::addScenario(#name, name, threads); \
    static void name([[maybe_unused]] ::scenarios::Run& run)

#define SCENARIO(name) SCENARIO_OF(name, false)
#define THREADED_SCENARIO(name) SCENARIO_OF(name, true)

} // namespace scenarios
