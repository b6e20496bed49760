#pragma once

// Faiss' callback for interrupts, as tests want it.

#include <faiss/impl/AuxIndexStructures.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

namespace test {

/// While it lives, Faiss' callback asks `wanted`, which is given the number of
/// the question, from 1, until that has said yes once.
class Interrupting {
   public:
    explicit Interrupting(std::function<bool(int)> wanted)
            : wanted_(std::move(wanted)) {
        faiss::InterruptCallback::instance = std::make_unique<Callback>(*this);
    }
    ~Interrupting() {
        faiss::InterruptCallback::clear_instance();
    }
    Interrupting(const Interrupting&) = delete;
    Interrupting& operator=(const Interrupting&) = delete;

    /// How often it was asked.
    int asked() const {
        return asked_;
    }
    /// Whether it has said yes.
    bool fired() const {
        return fired_;
    }

   private:
    struct Callback : faiss::InterruptCallback {
        explicit Callback(Interrupting& test) : test_(test) {}
        bool want_interrupt() override {
            const int nth = ++test_.asked_;
            if (test_.fired_ || !test_.wanted_(nth)) {
                return false;
            }
            test_.fired_ = true;
            return true;
        }
        Interrupting& test_;
    };

    const std::function<bool(int)> wanted_;
    std::atomic<int> asked_{0};
    std::atomic<bool> fired_{false};
};

} // namespace test
