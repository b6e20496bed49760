#pragma once

// What the exact search's bounds are held against: values without rounding, and
// the furthest D that its error allows.

#include <cmath>

#include "support/ExactFilter.h"
#include "support/Quad.h"

namespace test {

/// To about 100 bits.
inline Quad rootOf(Quad square) {
    const double near = std::sqrt(double(square));
    return near > 0 ? (near + square / near) / 2 : Quad(0);
}

inline float roundedUp(Quad value) {
    const float near = float(double(value));
    return Quad(near) < value ? exact::nextUp(near) : near;
}

inline float roundedDown(Quad value) {
    const float near = float(double(value));
    return Quad(near) > value ? exact::nextDown(near) : near;
}

/// Of one query and one vector, both finite.
struct Truth {
    Truth(const Store& store, const float* x, int64_t row) {
        Quad loss = 0, xx = 0, yy = 0;
        for (int i = 0; i < store.d; ++i) {
            const Quad a = x[i], b = store.at(row, i);
            loss += store.metric == Metric::L2 ? (a - b) * (a - b) : -a * b;
            xx += a * a;
            yy += b * b;
        }
        const exact::DistanceError error =
                exact::distanceError(store.metric, store.d);
        const Quad part =
                Quad(error.relative) *
                (store.metric == Metric::L2 ? loss : rootOf(xx) * rootOf(yy));
        const Quad off = (part + Quad(error.absolute)) * (1 - 0x1p-60);
        exactly = loss;
        least = loss - off;
        most = loss + off;
    }

    /// Without rounding, and what D may have made of it.
    Quad exactly;
    Quad least;
    Quad most;
};

} // namespace test
