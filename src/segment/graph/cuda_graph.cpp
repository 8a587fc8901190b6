// CUDA graphs for sonomask: work of one shape is recorded once, and from then on sent to the GPU as a whole.
// And lanes: streams on which bytes are copied to the GPU past what is queued there.
//
// tch has neither graphs nor streams, and recording needs libtorch's allocator to know of it, hence C++. It is a library of its own,
// opened after libtorch's CUDA part, so that one program runs with and without a GPU. Every function catches what is thrown:
// nothing may pass through Rust. Functions that can fail give 0 when they have not; sonomask_graph_error() says what has.
// A recorder is used by one thread at a time, and so is a lane.

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <torch/version.h>

namespace {

thread_local std::string error;

template <typename F>
int guarded(F work) {
    try {
        work();
        return 0;
    } catch (const std::exception& e) {
        error = e.what();
    } catch (...) {
        error = "an exception of an unknown type";
    }
    return 1;
}

struct Recorder {
    explicit Recorder(c10::DeviceIndex device)
        : side(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)) {}

    c10::DeviceIndex device() const { return side.device_index(); }

    // Where work is recorded: the default stream cannot be. One for all that this recorder records, as each has memory of its own for
    // cuBLAS.
    c10::cuda::CUDAStream side;
    // The stream that was current before.
    std::optional<c10::cuda::CUDAStream> before;
    // Where the memory of what is being recorded comes from.
    at::cuda::MempoolId_t pool{0, 0};
    std::optional<at::cuda::CUDAGraph> graph;
};

Recorder& of(void* handle) { return *static_cast<Recorder*>(handle); }

// After a recording that failed libtorch's allocators still wait for its end where libtorch 2.11 has not come to telling them, and would
// from then on neither free nor retry when memory runs out. What they do not wait for is the graph's own to release.
void abandon(Recorder& recorder) {
    auto device = recorder.device();
    auto pool = recorder.pool;
    if (guarded([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool); }) == 0) {
        guarded([&] { c10::cuda::CUDACachingAllocator::releasePool(device, pool); });
    }
    auto* host = at::getHostAllocator(at::kCUDA);
    if (guarded([&] { host->end_allocate_to_pool(pool); }) == 0) {
        guarded([&] { host->release_pool(pool); });
    }
    recorder.graph.reset();
}

template <typename F>
void or_abandon(Recorder& recorder, F work) {
    try {
        work();
    } catch (...) {
        abandon(recorder);
        throw;
    }
}

// A stream for copies to the device. The device alone waits for what orders them with the current stream,
// never the host. Of another pool than those of recorders: they come round, and a copy on a stream that another
// thread records would be recorded with it.
struct Lane {
    explicit Lane(c10::DeviceIndex device)
        : stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device)) {}

    c10::DeviceIndex device() const { return stream.device_index(); }

    c10::cuda::CUDAStream stream;
    // On the current stream, behind all that reads or writes the memory before the next copy into it.
    c10::cuda::CUDAEvent used;
    // On this stream, behind the last copy.
    c10::cuda::CUDAEvent copied;
};

Lane& lane_of(void* handle) { return *static_cast<Lane*>(handle); }

}  // namespace

extern "C" {

// Of libtorch, against which this was compiled: another one has other classes.
const char* sonomask_graph_torch() { return TORCH_VERSION; }

const char* sonomask_graph_error() { return error.c_str(); }

// A recorder of a device; null if there is none.
void* sonomask_graph_new(int device) {
    void* made = nullptr;
    guarded([&] { made = new Recorder(static_cast<c10::DeviceIndex>(device)); });
    return made;
}

// What this thread queues from here on goes to the recorder's stream. Waits for what was queued before.
int sonomask_graph_enter(void* handle) {
    return guarded([&] {
        auto& recorder = of(handle);
        auto current = c10::cuda::getCurrentCUDAStream(recorder.device());
        current.synchronize();
        recorder.before = current;
        c10::cuda::setCurrentCUDAStream(recorder.side);
    });
}

// Goes back to the stream that was current before. Waits for the recorder's.
int sonomask_graph_leave(void* handle) {
    return guarded([&] {
        auto& recorder = of(handle);
        if (auto before = std::exchange(recorder.before, std::nullopt)) {
            c10::cuda::setCurrentCUDAStream(*before);
        }
        recorder.side.synchronize();
    });
}

// What this thread queues from here on is recorded instead of run. Other threads go on as they do.
int sonomask_graph_begin(void* handle) {
    return guarded([&] {
        auto& recorder = of(handle);
        c10::cuda::CUDAGuard guard(recorder.device());
        recorder.graph.reset();
        // Within a recording nothing that is kept can be given back to make room. Another thread's recording may forbid it here, too.
        recorder.side.synchronize();
        guarded([&] { c10::cuda::CUDACachingAllocator::emptyCache(); });
        recorder.pool = at::cuda::graph_pool_handle();
        recorder.graph.emplace();
        or_abandon(recorder, [&] { recorder.graph->capture_begin(recorder.pool, cudaStreamCaptureModeThreadLocal); });
    });
}

// Ends what was begun, however it went.
int sonomask_graph_end(void* handle) {
    return guarded([&] {
        auto& recorder = of(handle);
        c10::cuda::CUDAGuard guard(recorder.device());
        TORCH_CHECK(recorder.graph, "nothing is being recorded");
        or_abandon(recorder, [&] { recorder.graph->capture_end(); });
    });
}

// Queues all that was recorded, on the current stream.
int sonomask_graph_replay(void* handle) {
    return guarded([&] {
        auto& recorder = of(handle);
        TORCH_CHECK(recorder.graph, "nothing was recorded");
        recorder.graph->replay();
    });
}

// Gives back what was recorded, and its memory.
void sonomask_graph_forget(void* handle) {
    guarded([&] { of(handle).graph.reset(); });
}

void sonomask_graph_free(void* handle) {
    guarded([&] { delete static_cast<Recorder*>(handle); });
}

// A lane of a device; null if there is none.
void* sonomask_graph_lane_new(int device) {
    void* made = nullptr;
    guarded([&] { made = new Lane(static_cast<c10::DeviceIndex>(device)); });
    return made;
}

// What is queued on the current stream up to here is all that the next copy has to wait for.
int sonomask_graph_lane_used(void* handle) {
    return guarded([&] {
        auto& lane = lane_of(handle);
        lane.used.record(c10::cuda::getCurrentCUDAStream(lane.device()));
    });
}

// Queues a copy to the device behind what sonomask_graph_lane_used has marked last. What is queued on the
// current stream from here on waits for the copy. If this fails, no copy is under way when it returns.
int sonomask_graph_lane_copy(void* handle, void* to, const void* from, std::size_t bytes) {
    return guarded([&] {
        auto& lane = lane_of(handle);
        TORCH_CHECK(lane.used.isCreated(), "nothing says when the memory is free to copy to");
        c10::cuda::CUDAGuard guard(lane.device());
        try {
            lane.used.block(lane.stream);
            C10_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, lane.stream));
            lane.copied.record(lane.stream);
            lane.copied.block(c10::cuda::getCurrentCUDAStream(lane.device()));
        } catch (...) {
            // Nothing else may wait for it. A device that cannot be waited for has failed for good.
            guarded([&] { lane.stream.synchronize(); });
            throw;
        }
    });
}

// Waits for its copies first. Where that fails the device has failed for good: its events would throw where
// nothing may be thrown, and are left where they are.
void sonomask_graph_lane_free(void* handle) {
    if (guarded([&] { lane_of(handle).stream.synchronize(); }) == 0) {
        guarded([&] { delete static_cast<Lane*>(handle); });
    }
}

}  // extern "C"
