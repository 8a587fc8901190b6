//! Shared libraries that are opened while the program runs, and their functions.

use std::ffi::{CStr, c_int, c_void};

/// Opens a library by its name or path, with dlopen's `flags`; it is never closed.
///
/// # Errors
/// The dynamic linker's words.
pub fn open(library: &CStr, flags: c_int) -> Result<*mut c_void, String> {
    // SAFETY: the name is a NUL-terminated string; the libraries that are opened here have initialisers that are made to run at load
    // time. The handle is never closed, so nothing that was registered can dangle.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | flags) };
    if handle.is_null() { Err(last_error(library)) } else { Ok(handle) }
}

/// A function of a library that is open, or with `libc::RTLD_DEFAULT` of any.
///
/// # Errors
/// The dynamic linker's words.
pub fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: the library is open and the name a NUL-terminated string; nothing is run by asking.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    if found.is_null() { Err(last_error(name)) } else { Ok(found) }
}

fn last_error(of: &CStr) -> String {
    // SAFETY: dlerror returns NULL or a NUL-terminated string that stays valid until this thread's next dl call.
    let message = unsafe {
        let error = libc::dlerror();
        if error.is_null() { None } else { Some(CStr::from_ptr(error).to_string_lossy().into_owned()) }
    };
    message.unwrap_or_else(|| format!("{} cannot be loaded", of.to_string_lossy()))
}
