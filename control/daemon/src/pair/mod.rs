pub mod tls;
pub mod transport;
