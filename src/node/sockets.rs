//! The sockets the node binds itself, before any actor runs: what is taken is said at once, and
//! actors share the listeners over their restarts.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use multiaddr::{Multiaddr, Protocol};

use super::StartError;
use crate::{admin::protocol::SOCKET, config::Config};

/// The admin socket and the HTTP listener.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) admin: UnixListener,
    pub(super) http_listener: Option<TcpListener>,
    http: Option<SocketAddr>,
}

impl Sockets {
    /// Binds both, and tries every address of `network.listen` and `network.open_listen`.
    pub(super) fn bind(config: &Config, data_dir: &Path) -> Result<Self, StartError> {
        for address in config
            .network
            .listen
            .iter()
            .chain(&config.network.open_listen)
        {
            try_listen(address)?;
        }
        let http_listener = config.admin.http.map(bind_http).transpose()?;
        let http = http_listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        Ok(Self {
            admin: bind_admin(&data_dir.join(SOCKET))?,
            http_listener,
            http,
        })
    }

    /// Where health and metrics are.
    pub(super) fn http(&self) -> Option<SocketAddr> {
        self.http
    }
}

/// Whether libp2p will be able to listen there a moment later.
fn try_listen(address: &Multiaddr) -> Result<(), StartError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let tried = match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) => UdpSocket::bind((ip, port)).map(drop),
        _ => return Ok(()),
    };
    tried.map_err(|source| StartError::Listen {
        address: address.clone(),
        source,
    })
}

fn bind_http(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Http { address, source })
}

/// Binds the admin socket with mode 0600. The data directory's lock is held, so a socket that is
/// there is a dead node's, unless somebody else listens on it.
fn bind_admin(path: &Path) -> Result<UnixListener, StartError> {
    let bind = || -> io::Result<UnixListener> {
        match fs::symlink_metadata(path) {
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Bound under another name and renamed once its mode is right: nobody can connect in
        // between, even where the data directory is open to others.
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(&fresh, path)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Socket {
        path: path.to_owned(),
        source,
    })
}
