//! The skeletons that `build.rs` generates: the compiled programs and names for their maps.
// Generated code follows no lint of ours, and not all that it offers is used.
#![allow(warnings, unsafe_code, clippy::all, clippy::undocumented_unsafe_blocks)]

pub(crate) mod server {
    include!(concat!(env!("OUT_DIR"), "/server.skel.rs"));
}

pub(crate) mod client {
    include!(concat!(env!("OUT_DIR"), "/client.skel.rs"));
}
