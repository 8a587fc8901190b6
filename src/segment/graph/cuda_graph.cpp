// CUDA graphs for sonomask: work of one shape is recorded once, and from then on sent to the GPU as a whole.
//
// tch has neither graphs nor streams, and recording needs libtorch's allocator to know of it, hence C++. It is a library of its own,
// opened after libtorch's CUDA part, so that one program runs with and without a GPU. Every function catches what is thrown:
// nothing may pass through Rust. Functions that can fail give 0 when they have not; sonomask_graph_error() says what has.
// All calls about a graph come from one thread.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>

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

struct Graph {
    explicit Graph(c10::DeviceIndex device) : side(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)) {}

    at::cuda::CUDAGraph graph;
    // The default stream cannot be recorded.
    c10::cuda::CUDAStream side;
    // The stream that was current before.
    std::optional<c10::cuda::CUDAStream> before;
};

Graph& of(void* handle) { return *static_cast<Graph*>(handle); }

}  // namespace

extern "C" {

// Of libtorch, against which this was compiled: another one has other classes.
const char* sonomask_graph_torch() { return TORCH_VERSION; }

const char* sonomask_graph_error() { return error.c_str(); }

// Null if it fails.
void* sonomask_graph_new(int device) {
    void* made = nullptr;
    guarded([&] { made = new Graph(static_cast<c10::DeviceIndex>(device)); });
    return made;
}

// What this thread queues from here on goes to the graph's stream. Waits for what was queued before.
int sonomask_graph_enter(void* handle) {
    return guarded([&] {
        auto current = c10::cuda::getCurrentCUDAStream(of(handle).side.device_index());
        current.synchronize();
        of(handle).before = current;
        c10::cuda::setCurrentCUDAStream(of(handle).side);
    });
}

// Goes back to the stream that was current before. Waits for the graph's.
int sonomask_graph_leave(void* handle) {
    return guarded([&] {
        if (auto before = std::exchange(of(handle).before, std::nullopt)) {
            c10::cuda::setCurrentCUDAStream(*before);
        }
        of(handle).side.synchronize();
    });
}

// What this thread queues from here on is recorded instead of run. Other threads go on as they do.
int sonomask_graph_begin(void* handle) {
    return guarded([&] { of(handle).graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal); });
}

// Ends what was begun, however it went.
int sonomask_graph_end(void* handle) {
    return guarded([&] { of(handle).graph.capture_end(); });
}

// Queues all that was recorded, on the current stream.
int sonomask_graph_replay(void* handle) {
    return guarded([&] { of(handle).graph.replay(); });
}

void sonomask_graph_free(void* handle) {
    guarded([&] { delete static_cast<Graph*>(handle); });
}

}  // extern "C"
