//! Environment variables, for the config's `env:NAME` secrets.
//!
//! `std::env` is empty on wasm32-unknown-unknown, but Envoy offers WASI's two functions to every
//! module and fills them with what `vm_config.environment_variables` names.
#![expect(
    unsafe_code,
    reason = "WASI's functions are C functions over linear memory"
)]

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> i32;
    fn environ_get(environ: *mut *mut u8, buffer: *mut u8) -> i32;
}

/// More than this is not read: no config has so many secrets.
const MOST_BYTES: usize = 1 << 20;
const MOST_VARIABLES: usize = 4096;

/// What the VM was given; read when a config is.
pub(crate) struct Environment(Vec<u8>);

impl Environment {
    pub(crate) fn read() -> Environment {
        Environment(read().unwrap_or_default())
    }

    /// The value of `name`, if it is set and UTF-8.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.split(|&byte| byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            String::from_utf8(value.to_vec()).ok()
        })
    }
}

/// `NAME=value`, each with a NUL behind it.
fn read() -> Option<Vec<u8>> {
    let (mut count, mut size) = (0, 0);
    // SAFETY: writes two numbers to valid pointers.
    if unsafe { environ_sizes_get(&mut count, &mut size) } != 0
        || count > MOST_VARIABLES
        || size > MOST_BYTES
    {
        return None;
    }
    let mut starts = vec![std::ptr::null_mut(); count];
    let mut bytes = vec![0; size];
    // SAFETY: the host writes `count` pointers and `size` bytes, as it just said.
    let status = unsafe { environ_get(starts.as_mut_ptr(), bytes.as_mut_ptr()) };
    (status == 0).then_some(bytes)
}
