//! `devnet`: a private network of real node processes on loopback, enrolled by the same functions
//! as `identity` and `trust`.
//!
//! The nodes are children of this process and live as long as it: each ends when its standard
//! input closes, so that none is left behind even when this process is killed.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Serialize;
use thiserror::Error;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{
    args::DevnetArgs,
    client::AdminClient,
    enrol::EnrolError,
    exit::CliError,
    identity::{IssueArgs, RequestArgs, import, issue, issuer_init, request},
    output::Out,
    revoke::{What, revoke},
    trust::{AddArgs, add},
};
use crate::{
    admin::protocol::{Request, Response},
    identity::{
        Attributes, Grant, IdentityPaths, Name, NodeKey, read_bounded,
        status::{DEFAULT_NEXT_UPDATE, MAX_STATUS_BYTES, STATUS_EXTENSION},
    },
    node::{DataDirError, create_data_dir},
    types::{Clock, SystemClock},
};

/// How long the nodes may take to find each other.
const CONNECT_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node may take to stop before it is killed; its own deadline is shorter.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// Why there is no devnet.
#[derive(Debug, Error)]
pub enum DevnetError {
    /// The numbers make no sense.
    #[error("a devnet has at most as many issuers as nodes")]
    Size,
    /// Enrolment failed.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// A directory could not be made.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file could not be written, or a process not started.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that devnet did not write.
    #[error("{0} was not written by devnet: move it away, or choose another --dir")]
    Foreign(PathBuf),
    /// A node did not end in order.
    #[error("a node did not end in order ({0}); see the node.log files")]
    Disorderly(std::process::ExitStatus),
    /// A node ended by itself.
    #[error("node-{0} ended by itself ({1}); see {2}")]
    Ended(usize, std::process::ExitStatus, PathBuf),
    /// Nobody reads what this command prints.
    #[error("{0}")]
    Output(String),
    /// A node did not take an issuer's list.
    #[error("the status list of an issuer was not taken: {0}")]
    Status(String),
    /// They did not find each other.
    #[error("the nodes are not connected after {0:?}; see the node.log files in {1}")]
    NotConnected(Duration, PathBuf),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> DevnetError {
    let what = what.into();
    move |source| DevnetError::Io { what, source }
}

/// How every configuration of this command begins.
const HEADER: &str = "# Written by `quantraband devnet`";

struct Member {
    dir: PathBuf,
    port: u16,
    http: u16,
}

impl Member {
    fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    fn paths(&self) -> IdentityPaths {
        IdentityPaths::new(self.dir.join("data"))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }
}

/// Makes the network where it is not there yet, runs it, and waits for the end.
///
/// # Errors
/// As [`DevnetError`] says; the children are stopped in any case.
pub async fn run(args: &DevnetArgs, out: &Out) -> Result<(), DevnetError> {
    if args.issuers > args.nodes {
        return Err(DevnetError::Size);
    }
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("quantraband-devnet-{}", std::process::id()))
    });
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("signals"))?;
    let members = prepare(&dir, usize::from(args.nodes), usize::from(args.issuers))?;
    let mut children = Vec::new();
    let ended = {
        let watched = async {
            for member in &members {
                children.push(start(member)?);
            }
            wait_connected(&dir, &members, &mut children).await?;
            import_lists(&dir, &members, usize::from(args.issuers)).await?;
            announce(args, &members, out).map_err(|error| DevnetError::Output(error.message))?;
            loop {
                check(&members, &mut children)?;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            failed = watched => failed,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    };
    let stopped = stop(children).await;
    ended.and(stopped)
}

/// Keys, credentials, trust and configuration of every node; what is there already is kept.
fn prepare(root: &Path, nodes: usize, issuers: usize) -> Result<Vec<Member>, DevnetError> {
    let now = SystemClock::new().now();
    let count = issuers;
    let issuers = root.join("issuers");
    let mut names = Vec::new();
    for i in 1..=count {
        let name = Name::try_new(&format!("issuer-{i}")).map_err(|_| DevnetError::Size)?;
        let dir = issuers.join(name.as_str());
        if !dir.join(format!("{name}.anchor")).exists() {
            fs::create_dir_all(&issuers).map_err(io_error(issuers.display().to_string()))?;
            issuer_init(&name, &dir, now)?;
        }
        // A fresh list at every start: what was revoked stays revoked.
        revoke(&dir, &What::Nothing, DEFAULT_NEXT_UPDATE, now)?;
        names.push((name, dir));
    }
    let mut members = Vec::new();
    let mut bootstrap: Vec<String> = Vec::new();
    for i in 1..=nodes {
        let dir = root.join(format!("node-{i}"));
        let member = Member {
            dir,
            port: free_port()?,
            http: free_port()?,
        };
        create_data_dir(&member.dir)?;
        create_data_dir(&member.dir.join("data"))?;
        let paths = member.paths();
        if !paths.node_key().exists() {
            NodeKey::create(&paths.node_key()).map_err(EnrolError::from)?;
        }
        let key = NodeKey::load(&paths.node_key()).map_err(EnrolError::from)?;
        for (name, dir) in &names {
            let anchor = dir.join(format!("{name}.anchor"));
            add(
                &paths,
                &AddArgs {
                    anchor,
                    ..AddArgs::default()
                },
            )?;
        }
        if !paths.credential().exists()
            && let Some((_, issuer)) = names.get((i - 1) % names.len().max(1))
        {
            enrol(i, &member, issuer)?;
        }
        refuse_foreign(&member.config())?;
        let text = configuration(&member, &bootstrap);
        fs::write(member.config(), text)
            .map_err(io_error(member.config().display().to_string()))?;
        bootstrap.push(format!(
            "/ip4/127.0.0.1/tcp/{}/p2p/{}",
            member.port,
            key.peer()
        ));
        members.push(member);
    }
    Ok(members)
}

/// Request, issue, import: as two organisations do it by hand.
fn enrol(i: usize, member: &Member, issuer: &Path) -> Result<(), DevnetError> {
    let now = SystemClock::new().now();
    let (asked, granted) = (
        member.dir.join("node.request"),
        member.dir.join("node.credential"),
    );
    for old in [&asked, &granted] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(old.display().to_string())(error));
            }
            _ => {}
        }
    }
    let paths = member.paths();
    let subject = Name::try_new(&format!("node-{i}")).map_err(|_| DevnetError::Size)?;
    let wish = RequestArgs {
        subject,
        attributes: Attributes::default(),
        out: asked.clone(),
    };
    request(&paths, &wish, now)?;
    let grant = Grant::default();
    issue(
        &IssueArgs {
            dir: issuer.to_owned(),
            request: asked,
            grant,
            lifetime: None,
            out: granted.clone(),
        },
        now,
    )?;
    import(&paths, &granted, now)?;
    Ok(())
}

/// A port that was free a moment ago. Should another process take it, the node says so and ends.
fn free_port() -> Result<u16, DevnetError> {
    let probe = TcpListener::bind(("127.0.0.1", 0)).map_err(io_error("a free port"))?;
    Ok(probe.local_addr().map_err(io_error("a free port"))?.port())
}

fn configuration(member: &Member, bootstrap: &[String]) -> String {
    let Member { port, http, .. } = member;
    format!(
        "{HEADER}; keys not named here have their defaults.\n\
         version = 1\n\n\
         [network]\n\
         listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
         bootstrap = {bootstrap:#?}\n\
         dial_backoff_initial = \"200ms\"\n\
         dial_backoff_max = \"5s\"\n\n\
         [limits]\n\
         # All nodes share one address here.\n\
         exempt_networks = [\"127.0.0.0/8\"]\n\n\
         [policy]\n\
         member_topics = [\"*\"]\n\n\
         [admin]\n\
         http = \"127.0.0.1:{http}\"\n\n\
         [testing]\n\
         # A devnet is for trying things out: `quantraband actors inject swarm panic`.\n\
         fault_injection = true\n",
    )
}

/// A configuration that somebody else wrote is not overwritten.
fn refuse_foreign(path: &Path) -> Result<(), DevnetError> {
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(HEADER) => Err(DevnetError::Foreign(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(path.display().to_string())(error)),
    }
}

fn start(member: &Member) -> Result<Child, DevnetError> {
    let program = std::env::current_exe().map_err(io_error("this program"))?;
    let log = File::create(member.log()).map_err(io_error(member.log().display().to_string()))?;
    Command::new(program)
        .args(["run", "--until-stdin-closes", "--config"])
        .arg(member.config())
        // Of its own group: Ctrl-C on the terminal is for this process, which then asks each.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(io_error("a node process"))
}

fn check(members: &[Member], children: &mut [Child]) -> Result<(), DevnetError> {
    for (i, (member, child)) in members.iter().zip(children).enumerate() {
        if let Some(status) = child.try_wait().map_err(io_error("a node process"))? {
            return Err(DevnetError::Ended(i + 1, status, member.log()));
        }
    }
    Ok(())
}

/// How many peers a node has; `None` while it does not answer.
async fn connected(member: &Member) -> Option<usize> {
    let client = AdminClient::connect(&member.dir.join("data")).await.ok()?;
    match client.ask(&Request::Status {}).await {
        Ok(Response::Status(status)) => Some(status.connected),
        _ => None,
    }
}

async fn wait_connected(
    dir: &Path,
    members: &[Member],
    children: &mut [Child],
) -> Result<(), DevnetError> {
    let others = members.len().saturating_sub(1);
    let all = async {
        for member in members {
            while connected(member).await.is_none_or(|peers| peers < others) {
                check(members, children)?;
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(CONNECT_DEADLINE, all)
        .await
        .unwrap_or_else(|_| Err(DevnetError::NotConnected(CONNECT_DEADLINE, dir.to_owned())))
}

/// Hands every issuer's list to the first node, which tells the others.
async fn import_lists(dir: &Path, members: &[Member], issuers: usize) -> Result<(), DevnetError> {
    let Some(first) = members.first() else {
        return Ok(());
    };
    for i in 1..=issuers {
        let name = format!("issuer-{i}");
        let folder = dir.join("issuers").join(&name);
        let file = folder.join(format!("{name}.{STATUS_EXTENSION}"));
        let bytes = read_bounded(&file, MAX_STATUS_BYTES).map_err(EnrolError::from)?;
        let asked = async {
            let client = AdminClient::connect(&first.dir.join("data")).await?;
            client.ask(&Request::StatusImport { bytes }).await
        };
        asked
            .await
            .map_err(|error| DevnetError::Status(error.to_string()))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Announced<'a> {
    nodes: Vec<AnnouncedNode<'a>>,
    issuers: u16,
}

#[derive(Serialize)]
struct AnnouncedNode<'a> {
    name: String,
    config: &'a Path,
    http: String,
}

/// Says that all are connected, in the form asked for.
fn announce(args: &DevnetArgs, members: &[Member], out: &Out) -> Result<(), CliError> {
    let configs: Vec<PathBuf> = members.iter().map(Member::config).collect();
    let nodes: Vec<AnnouncedNode<'_>> = members
        .iter()
        .zip(&configs)
        .enumerate()
        .map(|(i, (member, config))| AnnouncedNode {
            name: format!("node-{}", i + 1),
            config,
            http: format!("127.0.0.1:{}", member.http),
        })
        .collect();
    let announced = Announced {
        nodes,
        issuers: args.issuers,
    };
    out.answer("quantraband.devnet/1", &announced, || {
        let mut lines: Vec<String> = announced
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "devnet: {} {} (http {})",
                    node.name,
                    node.config.display(),
                    node.http
                )
            })
            .collect();
        lines.push(format!(
            "devnet: connected {} nodes of {} issuers; stop with Ctrl-C",
            args.nodes, args.issuers
        ));
        lines.join("\n")
    })
}

/// Closes every child's standard input, which it takes as the wish to stop, and waits.
async fn stop(mut children: Vec<Child>) -> Result<(), DevnetError> {
    let mut worst = Ok(());
    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in &mut children {
        match tokio::time::timeout(STOP_DEADLINE, child.wait()).await {
            Ok(Ok(status)) if !status.success() => worst = Err(DevnetError::Disorderly(status)),
            Ok(_) => {}
            // Best effort: it is killed when dropped, too.
            Err(_) => drop(child.kill().await),
        }
    }
    worst
}
