//! TCP connections made inside a namespace.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Namespace;

/// Connects within `patience`; the same time bounds each later read and write.
pub fn connect(namespace: &Namespace, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = namespace
        .run(|| TcpStream::connect_timeout(&to, patience))
        .with_context(|| format!("{} cannot connect to {to}", namespace.name()))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}
