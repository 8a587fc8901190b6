//! CUDA graphs, through a library of our own: tch has neither graphs nor streams. Lanes come through it too.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use tch::{Device, TchError};

use super::{Engine, GraphError};
use crate::segment::device::load_cuda;
use crate::segment::library;

/// The functions of `cuda_graph.cpp`.
#[derive(Debug)]
pub(super) struct Api {
    torch: Text,
    error: Text,
    new: New,
    enter: Call,
    leave: Call,
    begin: Call,
    end: Call,
    replay: Call,
    forget: Free,
    free: Free,
    pub(super) lane_new: New,
    pub(super) lane_used: Call,
    pub(super) lane_copy: Transfer,
    pub(super) lane_free: Free,
}

type Text = unsafe extern "C" fn() -> *const c_char;
type New = unsafe extern "C" fn(c_int) -> *mut c_void;
type Call = unsafe extern "C" fn(*mut c_void) -> c_int;
type Transfer = unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize) -> c_int;
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
        let mut why = Vec::new();
        let opened = places.into_iter().find_map(|place| {
            let name = CString::new(place.into_os_string().into_vec()).ok()?;
            library::open(&name, libc::RTLD_LOCAL).map_err(|e| why.push(e)).ok()
        });
        let Some(handle) = opened else { return Err(why.join("; ")) };
        macro_rules! function {
            ($name:literal: $type:ty) => {
                // SAFETY: `cuda_graph.cpp` declares the function with this type.
                unsafe { std::mem::transmute::<*mut c_void, $type>(library::symbol(handle, $name)?) }
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
            forget: function!(c"sonomask_graph_forget": Free),
            free: function!(c"sonomask_graph_free": Free),
            lane_new: function!(c"sonomask_graph_lane_new": New),
            lane_used: function!(c"sonomask_graph_lane_used": Call),
            lane_copy: function!(c"sonomask_graph_lane_copy": Transfer),
            lane_free: function!(c"sonomask_graph_lane_free": Free),
        };
        // SAFETY: it takes nothing and gives a text that is part of the library.
        let torch = unsafe { CStr::from_ptr((api.torch)()) }.to_string_lossy();
        if !torch.starts_with(TORCH) {
            return Err(format!("{LIBRARY} was built for libtorch {torch}: expected {TORCH}"));
        }
        Ok(api)
    }

    /// The library, and what one of its functions makes for `device`; never null.
    ///
    /// # Errors
    /// Says what is missing: a GPU, or the library.
    pub(super) fn made(
        function: fn(&Self) -> New,
        device: Device,
    ) -> Result<(&'static Self, *mut c_void), String> {
        let Device::Cuda(index) = device else {
            return Err("there are CUDA graphs and streams on a GPU alone".into());
        };
        let device = c_int::try_from(index).map_err(|e| e.to_string())?;
        let api = Self::get()?;
        // SAFETY: it takes a number and gives what it has made or null.
        let made = unsafe { function(api)(device) };
        if made.is_null() { Err(api.last().to_string()) } else { Ok((api, made)) }
    }

    /// What a function has given, on the thread that has called it.
    pub(super) fn checked(&self, given: c_int) -> Result<(), GraphError> {
        if given == 0 { Ok(()) } else { Err(self.last()) }
    }

    /// What has failed last on this thread.
    fn last(&self) -> GraphError {
        // SAFETY: a text of this thread that stays until its next call fails.
        GraphError::Cuda(unsafe { CStr::from_ptr((self.error)()) }.to_string_lossy().into_owned())
    }
}

/// The libtorch that tch is made for.
const TORCH: &str = "2.11.";

/// Graphs of a CUDA device.
#[derive(Debug)]
pub struct CudaEngine {
    api: &'static Api,
    recorder: *mut c_void,
}

// SAFETY: a recorder may move to another thread; it is used by one at a time, as `Engine`'s methods take `&mut self`.
unsafe impl Send for CudaEngine {}

impl CudaEngine {
    /// For `device`.
    ///
    /// # Errors
    /// Says what is missing: a GPU, or the library.
    pub fn new(device: Device) -> Result<Self, String> {
        let (api, recorder) = Api::made(|api| api.new, device)?;
        Ok(Self { api, recorder })
    }

    fn call(&self, function: Call) -> Result<(), GraphError> {
        // SAFETY: one of the library's functions of a living recorder; it catches what is thrown.
        self.api.checked(unsafe { function(self.recorder) })
    }
}

impl Drop for CudaEngine {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { (self.api.free)(self.recorder) };
    }
}

/// This thread queues on the recorder's stream, and what it queues is recorded from [`Recording::begin`] on. Left when it is dropped,
/// however that comes.
struct Recording<'a> {
    engine: &'a CudaEngine,
    begun: bool,
}

impl<'a> Recording<'a> {
    fn enter(engine: &'a CudaEngine) -> Result<Self, GraphError> {
        engine.call(engine.api.enter)?;
        Ok(Self { engine, begun: false })
    }

    fn begin(&mut self) -> Result<(), GraphError> {
        self.engine.call(self.engine.api.begin)?;
        self.begun = true;
        Ok(())
    }

    fn end(&mut self) -> Result<(), GraphError> {
        if std::mem::take(&mut self.begun) { self.engine.call(self.engine.api.end) } else { Ok(()) }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        for failed in
            [self.end(), self.engine.call(self.engine.api.leave)].into_iter().filter_map(Result::err)
        {
            tracing::warn!("a CUDA graph's recording does not end: {failed}");
        }
    }
}

impl Engine for CudaEngine {
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        let recorded = Recording::enter(self).and_then(|mut recording| {
            // Once as it is, on the stream that will be recorded: libraries prepare themselves for each stream.
            work()?;
            recording.begin()?;
            work()?;
            recording.end()
        });
        if recorded.is_err() {
            // SAFETY: a living recorder; what is thrown is caught.
            unsafe { (self.api.forget)(self.recorder) };
        }
        recorded
    }

    fn replay(&mut self, _: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        self.call(self.api.replay)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    const PREFIX: &str = "sonomask_graph_";

    /// The functions that are looked up here, each with its type.
    fn wanted() -> BTreeMap<&'static str, &'static str> {
        let calls = include_str!("cuda.rs").split("function!(c\"").skip(1);
        let call = |text: &'static str| {
            let (name, rest) = text.split_once("\": ")?;
            Some((name, rest.split_once(')')?.0))
        };
        calls.filter_map(call).filter(|(name, _)| name.starts_with(PREFIX)).collect()
    }

    /// The functions that the library gives out, each with the type that its declaration comes to here.
    fn defined() -> BTreeMap<&'static str, &'static str> {
        let (_, outside) = include_str!("cuda_graph.cpp").split_once("extern \"C\" {").unwrap();
        let definition = |line: &'static str| {
            // A definition begins at the first column, what it calls does not.
            let (before, after) = line.split_once('(').filter(|_| !line.starts_with([' ', '/']))?;
            let at = before.find(PREFIX)?;
            let kind = match (before.get(..at)?.trim(), after.split_once(')')?.0) {
                ("const char*", "") => "Text",
                ("void*", "int device") => "New",
                ("int", "void* handle") => "Call",
                ("int", "void* handle, void* to, const void* from, std::size_t bytes") => "Transfer",
                ("void", "void* handle") => "Free",
                (given, taken) => panic!("no type of ours: {given} ({taken})"),
            };
            Some((before.get(at..)?, kind))
        };
        outside.lines().filter_map(definition).collect()
    }

    #[test]
    fn functions_that_are_looked_up_are_those_of_the_library_with_their_types() {
        let wanted = wanted();
        assert_eq!(wanted.len(), 14, "each field of the table has one: {wanted:?}");
        assert_eq!(wanted, defined());
    }
}
