//! CUDA graphs, through a library of our own: tch has neither graphs nor streams.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use tch::{Device, TchError};

use super::{Engine, GraphError};
use crate::segment::device::load_cuda;

/// The functions of `cuda_graph.cpp`.
#[derive(Debug)]
struct Api {
    torch: Text,
    error: Text,
    new: New,
    enter: Call,
    leave: Call,
    begin: Call,
    end: Call,
    replay: Call,
    free: Free,
}

type Text = unsafe extern "C" fn() -> *const c_char;
type New = unsafe extern "C" fn(c_int) -> *mut c_void;
type Call = unsafe extern "C" fn(*mut c_void) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void);

/// The library's name; it is looked for beside the program, then where the linker looks, libtorch's folder among that.
const LIBRARY: &str = "libsonomask_cuda.so";

impl Api {
    /// The library, opened once.
    fn get() -> Result<&'static Self, &'static str> {
        static API: OnceLock<Result<Api, String>> = OnceLock::new();
        API.get_or_init(Self::open).as_ref().map_err(String::as_str)
    }

    fn open() -> Result<Self, String> {
        // Its symbols are resolved by it.
        load_cuda()?;
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LIBRARY)));
        let places = beside.filter(|file| file.is_file()).into_iter().chain([PathBuf::from(LIBRARY)]);
        let mut handle = std::ptr::null_mut();
        let mut why = String::new();
        for place in places {
            let Ok(name) = CString::new(place.as_os_str().as_bytes()) else { continue };
            // SAFETY: the name is a NUL-terminated string. The library has no initialisers but those of its thread-local text, and
            // is never closed.
            handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            if !handle.is_null() {
                break;
            }
            why = last_error();
        }
        if handle.is_null() {
            return Err(why);
        }
        let symbol = |name: &CStr| -> Result<*mut c_void, String> {
            // SAFETY: the handle is open, the name NUL-terminated.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if found.is_null() { Err(last_error()) } else { Ok(found) }
        };
        macro_rules! function {
            ($name:literal: $type:ty) => {
                // SAFETY: `cuda_graph.cpp` declares the function with this type.
                unsafe { std::mem::transmute::<*mut c_void, $type>(symbol($name)?) }
            };
        }
        let api = Self {
            torch: function!(c"sonomask_graph_torch": Text),
            error: function!(c"sonomask_graph_error": Text),
            new: function!(c"sonomask_graph_new": New),
            enter: function!(c"sonomask_graph_enter": Call),
            leave: function!(c"sonomask_graph_leave": Call),
            begin: function!(c"sonomask_graph_begin": Call),
            end: function!(c"sonomask_graph_end": Call),
            replay: function!(c"sonomask_graph_replay": Call),
            free: function!(c"sonomask_graph_free": Free),
        };
        // SAFETY: it takes nothing and gives a text that is part of the library.
        let torch = unsafe { CStr::from_ptr((api.torch)()) }.to_string_lossy();
        if !torch.starts_with(TORCH) {
            return Err(format!("{LIBRARY} was built for libtorch {torch}: expected {TORCH}"));
        }
        Ok(api)
    }

    fn checked(&self, status: c_int) -> Result<(), GraphError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: a text of this thread that stays until its next call fails.
        Err(GraphError::Cuda(unsafe { CStr::from_ptr((self.error)()) }.to_string_lossy().into_owned()))
    }
}

/// The libtorch that tch is made for.
const TORCH: &str = "2.11.";

fn last_error() -> String {
    // SAFETY: dlerror returns NULL or a NUL-terminated string that stays valid until this thread's next dl call.
    unsafe {
        let error = libc::dlerror();
        if error.is_null() {
            format!("{LIBRARY} cannot be loaded")
        } else {
            CStr::from_ptr(error).to_string_lossy().into_owned()
        }
    }
}

/// Graphs of a CUDA device.
#[derive(Debug)]
pub struct CudaEngine {
    api: &'static Api,
    device: c_int,
    graph: Option<Handle>,
}

impl CudaEngine {
    /// For `device`.
    ///
    /// # Errors
    /// Says what is missing: a GPU, or the library.
    pub fn new(device: Device) -> Result<Self, String> {
        let Device::Cuda(index) = device else { return Err("there are CUDA graphs on a GPU alone".into()) };
        let device = c_int::try_from(index).map_err(|e| e.to_string())?;
        Ok(Self { api: Api::get()?, device, graph: None })
    }
}

/// A graph of the library.
#[derive(Debug)]
struct Handle {
    api: &'static Api,
    graph: *mut c_void,
}

// SAFETY: a graph may move to another thread; it is used by one at a time, as `Engine`'s methods take `&mut self`.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { (self.api.free)(self.graph) };
    }
}

impl Handle {
    fn call(&self, function: Call) -> Result<(), GraphError> {
        // SAFETY: one of the library's functions of a living graph; it catches what is thrown.
        self.api.checked(unsafe { function(self.graph) })
    }
}

impl Engine for CudaEngine {
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        self.graph = None;
        // SAFETY: it takes a number and gives a graph or null.
        let graph = unsafe { (self.api.new)(self.device) };
        if graph.is_null() {
            return self.api.checked(1);
        }
        let graph = Handle { api: self.api, graph };
        let api = self.api;
        graph.call(api.enter)?;
        // On the stream that will be recorded, once as it is: libraries prepare themselves for each stream.
        let done = work().map_err(GraphError::from).and_then(|()| {
            graph.call(api.begin)?;
            let work = work().map_err(GraphError::from);
            // A recording has to end, also one that failed.
            let end = graph.call(api.end);
            work.and(end)
        });
        let left = graph.call(api.leave);
        done.and(left)?;
        self.graph = Some(graph);
        Ok(())
    }

    fn replay(&mut self, _: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        match &self.graph {
            Some(graph) => graph.call(self.api.replay),
            None => Err(GraphError::Cuda("nothing was recorded".into())),
        }
    }
}
