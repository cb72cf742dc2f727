//! Members that ask an issuer's node for what is not theirs, and peers whose credential lapsed that
//! try what they may not.
#![cfg(test)]

mod common;

use common::{
    Issuer, Node, eventually,
    member::{self, soon},
    peer::credential,
    records::on_record,
};
use futures::StreamExt;
use libp2p::{
    Swarm,
    request_response::{Event, Message},
    swarm::SwarmEvent,
};
use quantraband::{
    identity::{
        Attributes, Chain, IssuerKey, Name, NodeKey, SigningRequest,
        enrolment::{RefusalCode, Request, Response},
    },
    network::{self, NodeBehaviour, NodeBehaviourEvent},
    sandbox::{JobId, wire},
    types::{Clock, SystemClock, Timestamp, Topic},
};
use tempfile::TempDir;

const MINUTE: u64 = 60;

struct World {
    _root: TempDir,
    issuer: Issuer,
    key: IssuerKey,
    hub: Node,
    now: Timestamp,
}

fn world() -> World {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let key = IssuerKey::load(&issuer.dir.join("issuer.key")).unwrap();
    let extra = format!("issuer.dir = {:?}\nissuer.deny = [\"denied\"]", issuer.dir);
    let mut hub = Node::init(root.path(), "hub", &extra);
    hub.enrol(&issuer);
    hub.start();
    World {
        _root: root,
        issuer,
        key,
        hub,
        now: SystemClock::new().now(),
    }
}

impl World {
    fn ago(&self, minutes: u64) -> Timestamp {
        Timestamp::from_secs(self.now.secs() - minutes * MINUTE)
    }

    /// A credential of an hour, issued so many minutes ago.
    fn issued(&self, key: &NodeKey, name: &str, minutes: u64) -> Vec<u8> {
        credential(&self.key, key, name, self.ago(minutes))
    }

    fn on_record(&self, parts: &[&str]) -> bool {
        on_record(&self.hub, parts)
    }

    fn index(&self) -> String {
        std::fs::read_to_string(self.issuer.dir.join("next-index")).unwrap_or_default()
    }

    async fn connected(&self, key: &NodeKey, credential: &[u8]) -> Swarm<NodeBehaviour> {
        member::connected(&self.hub, key, credential, None).await
    }

    async fn ask(&self, swarm: &mut Swarm<NodeBehaviour>, request: Request) -> Response {
        member::ask(&self.hub, swarm, request).await
    }

    /// What a member with a credential of these minutes gets for this request.
    async fn as_member(
        &self,
        key: &NodeKey,
        name: &str,
        minutes: u64,
        request: Vec<u8>,
    ) -> Response {
        let credential = self.issued(key, name, minutes);
        let mut swarm = self.connected(key, &credential).await;
        self.ask(&mut swarm, Request::Enrol { request }).await
    }
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed(&[n; 32])
}

fn request(key: &NodeKey, at: Timestamp) -> Vec<u8> {
    let boss = [("role".to_owned(), "boss".to_owned())];
    let boss = Attributes::try_new(boss.into()).unwrap();
    SigningRequest::seal(key, &Name::try_new("boss").unwrap(), &boss, at)
}

fn code(response: &Response) -> RefusalCode {
    match response {
        Response::Refused(refused) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn chain(response: &Response) -> Chain {
    match response {
        Response::Issued { chain, anchor } => {
            assert_eq!(anchor, &None);
            Chain::decode(chain).unwrap()
        }
        other => panic!("not issued: {other:?}"),
    }
}

#[tokio::test]
async fn a_renewal_gives_what_was_there_and_not_what_is_wished() {
    let world = world();
    let (me, before) = (key(1), world.index());
    let held = world.issued(&me, "node-1", 40);
    let mut swarm = world.connected(&me, &held).await;
    let ask = Request::Enrol {
        request: request(&me, world.now),
    };
    let first = world.ask(&mut swarm, ask.clone()).await;
    let got = chain(&first);
    let claims = got.credential().claims();
    assert_eq!(claims.subject.as_str(), "node-1");
    assert_eq!(claims.attributes.as_map()["role"], "tester");
    assert_eq!(claims.groups.iter().count(), 1);
    assert_eq!(claims.keys, *me.public());
    // The answer may have been lost: the same again, and no other number of the status list.
    assert_eq!(world.ask(&mut swarm, ask).await, first);
    let taken: Vec<u32> = [before, world.index()]
        .iter()
        .map(|text| text.trim().parse().unwrap())
        .collect();
    assert_eq!(taken[0] + 1, taken[1]);

    // Shown over the connection that stands, it takes effect.
    let present = |chain: &Chain| Request::Present {
        chain: chain.encode(),
    };
    // One of another name does not, though it ends later than the one that is held.
    let renamed = Chain::decode(&world.issued(&me, "node-2", 0)).unwrap();
    let answer = world.ask(&mut swarm, present(&renamed)).await;
    assert_eq!(code(&answer), RefusalCode::Denied);
    assert_eq!(world.ask(&mut swarm, present(&got)).await, Response::Noted);
    let expires = Timestamp::from_secs(claims.validity.expires());
    let peers = world.hub.json(&["peers"]);
    assert_eq!(peers["peers"][0]["expires"], expires.millis(), "{peers}");

    // Nor does one of an earlier end, or of another's key.
    for (credential, wanted) in [
        (held.clone(), "renewal.other"),
        (world.issued(&key(2), "node-1", 0), "another key"),
    ] {
        let chain = Chain::decode(&credential).unwrap();
        let Response::Refused(refused) = world.ask(&mut swarm, present(&chain)).await else {
            panic!("noted");
        };
        assert!(refused.detail.contains(wanted), "{}", refused.detail);
    }
    let peers = world.hub.json(&["peers"]);
    assert_eq!(peers["peers"][0]["expires"], expires.millis(), "{peers}");
    assert_eq!(peers["peers"][0]["identity"], "acme/node-1", "{peers}");
}

#[tokio::test]
async fn what_is_not_the_askers_is_refused() {
    let world = world();
    let before = world.index();
    let now = world.now;
    // Another node's request, which it might have overheard.
    let thief = key(3);
    let stolen = request(&key(4), now);
    let answer = world.as_member(&thief, "thief", 40, stolen).await;
    assert_eq!(code(&answer), RefusalCode::Invalid);
    let who = thief.peer().to_string();
    eventually("it is charged", || {
        world
            .on_record(&["charged", "bad_credential", &who])
            .then_some(())
    });
    let junk = world.as_member(&key(5), "junk", 40, vec![1, 2, 3]).await;
    assert_eq!(code(&junk), RefusalCode::Invalid);
    let old = request(&key(6), world.ago(20));
    let stale = world.as_member(&key(6), "stale", 40, old).await;
    assert_eq!(code(&stale), RefusalCode::Invalid);
    let early = world
        .as_member(&key(7), "early", 10, request(&key(7), now))
        .await;
    assert_eq!(code(&early), RefusalCode::TooEarly);
    let denied = world
        .as_member(&key(8), "denied", 40, request(&key(8), now))
        .await;
    assert_eq!(code(&denied), RefusalCode::Denied);
    assert_eq!(world.index(), before, "nothing was issued");
}

#[tokio::test]
async fn another_issuers_member_gets_nothing() {
    let world = world();
    let root = TempDir::new().unwrap();
    let globex = Issuer::init(root.path(), "globex");
    world.hub.trust(&globex);
    let issuer = IssuerKey::load(&globex.dir.join("issuer.key")).unwrap();
    let me = key(9);
    let held = credential(&issuer, &me, "node-1", world.ago(40));
    let mut swarm = world.connected(&me, &held).await;
    let request = request(&me, world.now);
    let answer = world.ask(&mut swarm, Request::Enrol { request }).await;
    assert_eq!(code(&answer), RefusalCode::Denied);
    // Nor is its credential heard after its end: this node is not of that issuer.
    let lapsed = credential(&issuer, &key(10), "node-2", world.ago(61));
    let refused = common::peer::present(&key(10), &lapsed, &world.hub.address()).await;
    assert!(refused.unwrap_err().contains("expired"));
}

#[tokio::test]
async fn whose_credential_lapsed_asks_for_another_and_does_nothing_else() {
    let world = world();
    let me = key(11);
    let lapsed = world.issued(&me, "node-1", 61);
    let mut swarm = world.connected(&me, &lapsed).await;
    let topic = Topic::try_new("orders").unwrap();
    network::subscribe(&mut swarm.behaviour_mut().gossip, &topic).unwrap();
    let hub = member::peer_of(&world.hub);
    let fetch = wire::Request::Cancel {
        job: JobId([0; 16]),
    };
    swarm.behaviour_mut().jobs.send_request(&hub, Ok(fetch));
    let refused = soon(async {
        loop {
            let SwarmEvent::Behaviour(NodeBehaviourEvent::Jobs(event)) =
                swarm.select_next_some().await
            else {
                continue;
            };
            if let Event::Message {
                message: Message::Response { response, .. },
                ..
            } = *event
            {
                return response;
            }
        }
    })
    .await;
    let wire::Response::Refused(refused) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.detail, "renewal_only");
    let who = me.peer().to_string();
    eventually("its subscription is denied", || {
        world
            .on_record(&["subscribe", "tier.limited", &who])
            .then_some(())
    });
    let peers = world.hub.json(&["peers"]);
    assert_eq!(peers["peers"][0]["tier"], "renewal_only", "{peers}");
    assert_eq!(
        peers["peers"][0]["topics"],
        serde_json::json!([]),
        "{peers}"
    );
    // A good chain over this connection does not make it a member: the gate does.
    let good = Chain::decode(&world.issued(&me, "node-1", 0)).unwrap();
    let present = Request::Present {
        chain: good.encode(),
    };
    let answer = world.ask(&mut swarm, present).await;
    assert_eq!(code(&answer), RefusalCode::Denied);
    let request = request(&me, world.now);
    let answer = world.ask(&mut swarm, Request::Enrol { request }).await;
    assert_eq!(
        chain(&answer).credential().claims().subject.as_str(),
        "node-1"
    );
}
