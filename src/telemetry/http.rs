//! `/live`, `/ready` and `/metrics`, on loopback.
//!
//! One worker, few connections, short deadlines: a stuck scraper costs the node nothing. Reads
//! only what [`Health`] shows, so a stuck actor cannot make an answer wait. When the server
//! fails the node goes on without it and says so.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::{self, Data},
};
use serde::Serialize;

use super::Metrics;

/// Most connections at once: a few scrapers and a person.
const MAX_CONNECTIONS: usize = 64;
/// Deadline of a request's head; loopback needs milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may stay idle between scrapes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long requests under way may take when the server stops.
const STOP_SECONDS: u64 = 1;

/// What the server shows. Implemented by the node; must not block.
pub trait Health: Send + Sync + 'static {
    /// Whether the process is worth keeping: its root still makes progress.
    fn live(&self) -> bool;
    /// Whether the node does its job, and why not.
    fn readiness(&self) -> Readiness;
    /// Sets the gauges that are read rather than counted (mailboxes, bans), before a scrape.
    fn collect(&self, metrics: &Metrics);
}

/// Whether the node does its job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Readiness {
    /// What keeps it from its job, in words; empty when ready.
    pub reasons: Vec<String>,
    /// What does not, but needs an eye on: a credential that expires soon, a peer not reached.
    pub notes: Vec<String>,
}

impl Readiness {
    /// Whether nothing keeps the node from its job.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

#[derive(Serialize)]
struct ReadyBody {
    schema: &'static str,
    ready: bool,
    #[serde(flatten)]
    readiness: Readiness,
}

/// Serves on `listener` until the handle's `stop` is called. Call it within an actix system or
/// a tokio `LocalSet`.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    metrics: Metrics,
) -> std::io::Result<ServerHandle> {
    let health: Data<dyn Health> = Data::from(health);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(health.clone())
            .app_data(Data::new(metrics.clone()))
            .route("/live", web::get().to(live))
            .route("/ready", web::get().to(ready))
            .route("/metrics", web::get().to(scrape))
    })
    .workers(1)
    .max_connections(MAX_CONNECTIONS)
    .client_request_timeout(REQUEST_TIMEOUT)
    .client_disconnect_timeout(REQUEST_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(STOP_SECONDS)
    // Signals belong to the node.
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the health server failed; the node goes on without it");
        }
    });
    Ok(handle)
}

async fn live(health: Data<dyn Health>) -> HttpResponse {
    let (mut answer, text) = if health.live() {
        (HttpResponse::Ok(), "live\n")
    } else {
        (HttpResponse::ServiceUnavailable(), "stuck\n")
    };
    answer
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(text)
}

async fn ready(health: Data<dyn Health>) -> HttpResponse {
    let readiness = health.readiness();
    let ready = readiness.is_ready();
    let mut answer = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(ReadyBody {
            schema: "quantraband.ready/1",
            ready,
            readiness,
        })
}

async fn scrape(health: Data<dyn Health>, metrics: Data<Metrics>) -> HttpResponse {
    health.collect(&metrics);
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ))
        .body(metrics.encode())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[derive(Default)]
    struct Fake {
        stuck: AtomicBool,
        alone: AtomicBool,
    }

    impl Health for Fake {
        fn live(&self) -> bool {
            !self.stuck.load(Ordering::SeqCst)
        }

        fn readiness(&self) -> Readiness {
            let alone = self.alone.load(Ordering::SeqCst);
            Readiness {
                reasons: alone
                    .then(|| "no peer is connected".to_owned())
                    .into_iter()
                    .collect(),
                notes: Vec::new(),
            }
        }

        fn collect(&self, metrics: &Metrics) {
            metrics.set_mailbox_depth("audit", 7);
        }
    }

    async fn get(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn request(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    }

    #[actix_rt::test]
    async fn the_three_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = Arc::new(Fake::default());
        let handle = serve(listener, fake.clone(), Metrics::new()).unwrap();

        assert!(
            get(port, &request("/live"))
                .await
                .starts_with("HTTP/1.1 200")
        );
        let answer = get(port, &request("/ready")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains(r#""schema":"quantraband.ready/1","ready":true"#),
            "{answer}"
        );
        let answer = get(port, &request("/metrics")).await;
        assert!(answer.contains("application/openmetrics-text"), "{answer}");
        assert!(
            answer.contains("quantraband_mailbox_depth{actor=\"audit\"} 7"),
            "{answer}"
        );

        fake.stuck.store(true, Ordering::SeqCst);
        fake.alone.store(true, Ordering::SeqCst);
        assert!(
            get(port, &request("/live"))
                .await
                .starts_with("HTTP/1.1 503")
        );
        let answer = get(port, &request("/ready")).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("no peer is connected"), "{answer}");

        assert!(get(port, &request("/")).await.starts_with("HTTP/1.1 404"));
        let post =
            "POST /live HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = get(port, post).await;
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 405"));
        handle.stop(true).await;
    }
}
