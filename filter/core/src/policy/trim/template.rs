//! Named templates.
