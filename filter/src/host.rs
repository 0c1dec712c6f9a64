//! Envoy's host calls, with every status an error that is returned.
//!
//! The SDK's own `hostcalls` return a `Result` too, but panic on any status that they do not
//! expect (no such buffer, no such header map), and a panic takes down the VM and every request
//! of its worker. Only calls that the SDK has to know of (`dispatch_http_call`) go through it.
#![expect(
    unsafe_code,
    reason = "the proxy-wasm ABI is C functions over linear memory; this module is the only one that calls it"
)]

use std::ops::Range;

use proxy_wasm::types::{BufferType, MapType, MetricType, StreamType};
use sluice_core::exchange::{Header, Headers};

/// A status other than OK, as in proxy-wasm's `WasmResult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(u32);

pub(crate) type Result<T> = std::result::Result<T, Status>;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        kind: u32,
        start: usize,
        size: usize,
        data: *const u8,
        len: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_len: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_len: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_len: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        version: u32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_len: usize,
        argument: *const u8,
        argument_len: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, amount: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
}

fn check(status: u32) -> Result<()> {
    match status {
        0 => Ok(()),
        other => Err(Status(other)),
    }
}

/// Runs a call that returns bytes, and takes them over.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    check(call(&mut data, &mut size))?;
    if data.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the host got `data` from `proxy_on_memory_allocate(size)`, which the SDK exports and
    // which leaks a `Vec<u8>` of that capacity; the host filled it and keeps no pointer to it.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Nanoseconds since the epoch; zero if the host has no clock.
pub(crate) fn now_ns() -> u64 {
    let mut time = 0;
    // SAFETY: writes a u64 to a valid pointer.
    let _ = check(unsafe { proxy_get_current_time_nanoseconds(&mut time) });
    time
}

/// Whether anybody reads debug lines now.
pub(crate) fn debugs() -> bool {
    let mut level = 2;
    // SAFETY: writes a u32 to a valid pointer.
    check(unsafe { proxy_get_log_level(&mut level) }).is_ok() && level <= 1
}

/// The bytes of a buffer, at most `most` of them; empty where there is none.
pub(crate) fn buffer(kind: BufferType, most: usize) -> Result<Vec<u8>> {
    // SAFETY: see `bytes`.
    let read =
        bytes(|data, size| unsafe { proxy_get_buffer_bytes(kind as u32, 0, most, data, size) });
    match read {
        Err(Status(1)) => Ok(Vec::new()),
        other => other,
    }
}

/// Replaces all of a buffer.
pub(crate) fn set_buffer(kind: BufferType, value: &[u8]) -> Result<()> {
    // Envoy replaces everything when the length reaches the buffer's end.
    // SAFETY: `value` is valid for the call.
    check(unsafe {
        proxy_set_buffer_bytes(
            kind as u32,
            0,
            u32::MAX as usize,
            value.as_ptr(),
            value.len(),
        )
    })
}

/// All headers of a map.
pub(crate) fn headers(map: MapType) -> Result<Headers> {
    // SAFETY: see `bytes`.
    let bytes = bytes(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })?;
    // Nothing is malformed unless the host is; then there are no headers.
    let pairs = pairs(&bytes).unwrap_or_default();
    Ok(Headers::new(bytes, pairs))
}

/// The ABI's map: count, the lengths of every key and value, then each with a NUL behind it.
fn pairs(bytes: &[u8]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let count = number(0)?;
    let mut at = 4 + count.checked_mul(8)?;
    let mut pairs = Vec::with_capacity(count.min(256));
    for index in 0..count {
        let mut next = |len: usize| {
            let part = at..at.checked_add(len)?;
            at = part.end.checked_add(1)?;
            (part.end <= bytes.len()).then_some(part)
        };
        let name = next(number(4 + index * 8)?)?;
        pairs.push((name, next(number(8 + index * 8)?)?));
    }
    Some(pairs)
}

/// One header's value.
pub(crate) fn header(map: MapType, name: &str) -> Result<Vec<u8>> {
    // SAFETY: `name` is valid for the call; see `bytes`.
    bytes(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

pub(crate) fn set_header(map: MapType, name: &str, value: &str) -> Result<()> {
    // SAFETY: both are valid for the call.
    check(unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Adds a header beside any of that name: cheaper than [`set_header`] where it is known that there
/// is none.
pub(crate) fn add_header(map: MapType, name: &str, value: &str) -> Result<()> {
    // SAFETY: both are valid for the call.
    check(unsafe {
        proxy_add_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<()> {
    // SAFETY: `name` is valid for the call.
    check(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// An attribute of the request; None where Envoy has none.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    // SAFETY: `path` is valid for the call; see `bytes`.
    bytes(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }).ok()
}

/// Filter state `wasm.NAME`.
pub(crate) fn set_state(name: &str, value: &str) -> Result<()> {
    // SAFETY: both are valid for the call.
    check(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A shared value and its version; version 0 where there is none yet.
pub(crate) fn shared(key: &str) -> (Vec<u8>, u32) {
    let mut version = 0;
    // SAFETY: `key` and `version` are valid for the call; see `bytes`.
    let value = bytes(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
    });
    value.map_or((Vec::new(), 0), |value| (value, version))
}

/// Sets a shared value if its version is still the same; version 0 sets it in any case.
pub(crate) fn set_shared(key: &str, value: &[u8], version: u32) -> Result<()> {
    // SAFETY: both are valid for the call.
    check(unsafe {
        proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            version,
        )
    })
}

/// Lets a paused request or response go on.
pub(crate) fn resume(stream: StreamType) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { proxy_continue_stream(stream as u32) })
}

/// Answers the client from here.
pub(crate) fn respond(status: u16, headers: &[Header], body: &[u8]) -> Result<()> {
    let mut map = (u32::try_from(headers.len()).unwrap_or(0))
        .to_le_bytes()
        .to_vec();
    for text in headers.iter().flat_map(|(name, value)| [*name, value]) {
        map.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    }
    for text in headers.iter().flat_map(|(name, value)| [*name, value]) {
        map.extend(text.as_bytes());
        map.push(0);
    }
    let details = "sluice";
    // SAFETY: all four are valid for the call.
    check(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            map.as_ptr(),
            map.len(),
            -1,
        )
    })
}

/// Has Envoy choose the route again.
pub(crate) fn clear_route_cache() -> Result<()> {
    let name = "clear_route_cache";
    // SAFETY: `name` is valid for the call; see `bytes`.
    bytes(|data, size| unsafe {
        proxy_call_foreign_function(name.as_ptr(), name.len(), std::ptr::null(), 0, data, size)
    })
    .map(drop)
}

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: `name` and `id` are valid for the call.
    check(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

pub(crate) fn increment_metric(id: u32, amount: u64) -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { proxy_increment_metric(id, i64::try_from(amount).unwrap_or(i64::MAX)) })
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { proxy_record_metric(id, value) })
}

/// Raises a gauge to `value` if it is lower.
pub(crate) fn raise_metric(id: u32, value: u64) -> Result<()> {
    let mut now = 0;
    // SAFETY: writes a u64 to a valid pointer.
    check(unsafe { proxy_get_metric(id, &mut now) })?;
    if now < value {
        record_metric(id, value)
    } else {
        Ok(())
    }
}

/// This VM's linear memory.
pub(crate) fn memory_bytes() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size::<0>() as u64 * 65_536;
    #[cfg(not(target_arch = "wasm32"))]
    0
}

pub(crate) fn tick_every(milliseconds: u32) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Tells the host that a context whose `on_done` returned false may go.
pub(crate) fn done() -> Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { proxy_done() })
}

/// Makes host calls act for another context, until the next call of this or the next callback.
pub(crate) fn act_for(context: u32) -> Result<()> {
    // SAFETY: takes a number; an unknown one is an error.
    check(unsafe { proxy_set_effective_context(context) })
}
