//! What is decided about a request, one module per lever or rule of the house.

pub mod route;
