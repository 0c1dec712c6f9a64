//! `limits`: how large a body may be that is still read.

use super::Lower;
use crate::config::plan::Limits;
use crate::config::raw;
use crate::config::values::Bytes;

impl Lower<'_> {
    pub(super) fn limits(&mut self, raw: &raw::Limits) -> Limits {
        // Envoy's buffers are bounded by its own limit; a gigabyte here would only hide a mistake.
        let bodies = 1..=1 << 30;
        let size = |size: Option<Bytes>, default| size.map_or(default, |size| size.0);
        let request = size(raw.request_body, 8 << 20);
        let response = size(raw.response_body, 4 << 20);
        for (path, value) in [
            ("limits.request_body", request),
            ("limits.response_body", response),
        ] {
            if !bodies.contains(&value) {
                self.fault(path, format!("found {value} bytes, expected 1 to 1GiB"));
            }
        }
        Limits {
            request_body: request as usize,
            response_body: response as usize,
            on_failure: raw.on_failure,
        }
    }
}
