//! Facts as Cedar wants them: a request, its context, and the entities it is about.
//!
//! Built anew for each evaluation. In release nothing is checked against the schema here, for it
//! is this file alone that makes entities; the tests check that all it can make conforms.

use cedar_policy::{
    Context, Entities, Entity, EntityUid, Request, RestrictedExpression as Value, Schema,
};

use super::{Facts, Resource, error::clean, names::Names, set::Mentions};
use crate::identity::Tier;

/// A question to Cedar.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) entities: Entities,
}

/// Whether entities and requests are checked against the schema.
const CHECKED: bool = cfg!(test);

/// The question that the facts are.
///
/// # Errors
/// What Cedar does not take, in words. Nothing that [`Facts`] can hold; a denial all the same.
pub(super) fn question(
    names: &Names,
    facts: &Facts,
    mentions: Mentions,
) -> Result<Question, String> {
    let schema: Option<&Schema> = CHECKED.then_some(&names.schema);
    let said = |error: &dyn std::fmt::Display| clean(&error.to_string());
    let action = names
        .action(facts.action)
        .ok_or("an action that policies do not judge")?;
    let peer = names.peer(&facts.principal.peer.to_string());
    let principal = principal(names, facts, peer.clone()).map_err(|error| said(&error))?;
    let resource = resource(names, facts).map_err(|error| said(&error))?;
    let context = context(facts, mentions).map_err(|error| said(&error))?;
    let request = Request::new(peer, action.clone(), resource.uid(), context, schema)
        .map_err(|error| said(&error))?;
    let entities =
        Entities::from_entities([principal, resource], schema).map_err(|error| said(&error))?;
    Ok(Question { request, entities })
}

/// Boxed: what Cedar says is large, and never comes.
type Built = Result<Entity, Box<cedar_policy::EntityAttrEvaluationError>>;

fn principal(names: &Names, facts: &Facts, uid: EntityUid) -> Built {
    let who = &facts.principal;
    let mut attributes = vec![
        text("issuer", &who.issuer),
        text("subject", &who.subject),
        text("tier", tier_name(who.tier)),
        truth("verified", who.tier == Tier::Member),
        number("trust", who.trust.into()),
        number("anomaly", who.anomaly.into()),
        truth("probation", who.probation),
        truth("quarantined", who.quarantined),
    ];
    attributes.extend(who.expires.map(|end| number("cred_expires", end)));
    let parents = who.groups.iter().map(|group| names.group(group));
    let tags = who.attributes.iter().map(|(name, value)| text(name, value));
    Entity::new_with_tags(uid, attributes, parents, tags).map_err(Box::new)
}

/// The tier as policies name it. Limited tiers never come this far.
pub(super) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Member => "member",
        Tier::SelfSigned => "self_signed",
        Tier::Unverified => "unverified",
        Tier::Invited => "invited",
        Tier::RenewalOnly => "renewal_only",
    }
}

fn resource(names: &Names, facts: &Facts) -> Built {
    match &facts.resource {
        Resource::Node(node) => Ok(Entity::with_uid(names.node(&node.to_string()))),
        Resource::Topic(topic) => {
            let name = topic.name.as_str();
            // Of `a/b/c` the trees are `a/` and `a/b/`. All of them: a forbid must not miss one.
            let ends = name.match_indices('/').map(|(at, _)| at.saturating_add(1));
            let trees = ends.filter_map(|end| name.get(..end).filter(|tree| *tree != name));
            let attributes = [
                truth("members", topic.members),
                truth("open", topic.open),
                truth("restricted", topic.restricted),
                number("min_trust", topic.min_trust.into()),
                truth("sensitive", topic.sensitive),
            ];
            let parents = trees.map(|tree| names.tree(tree));
            Entity::new_with_tags(names.topic(name), attributes, parents, []).map_err(Box::new)
        }
        Resource::Sandbox {
            members_run_jobs,
            max_cpu_s,
        } => {
            let attributes = [
                truth("members_run_jobs", *members_run_jobs),
                number("max_cpu_s", *max_cpu_s),
            ];
            Entity::new_with_tags(names.sandbox.clone(), attributes, [], []).map_err(Box::new)
        }
    }
}

fn context(facts: &Facts, mentions: Mentions) -> Result<Context, Box<dyn std::error::Error>> {
    let how = &facts.context;
    let settings = Value::new_record([
        number("connect_min_trust", how.connect_min_trust.into()),
        number("messages_min_trust", how.messages_min_trust.into()),
    ])?;
    let mut pairs = vec![
        text("transport", how.transport.map_or("", |kind| kind.name())),
        truth("post_quantum", how.post_quantum),
        truth("pq_auth", how.pq_auth),
        truth("has_connection", how.transport.is_some()),
        number("now", facts.now),
        ("settings".to_owned(), settings),
    ];
    pairs.extend(how.command.as_ref().map(|command| text("command", command)));
    // Parsing an address costs as much as a small decision; a set that reads none does not pay.
    if let Some(ip) = facts.ip.filter(|_| mentions.ip) {
        pairs.push(("ip".to_owned(), Value::new_ip(ip.to_string())));
    }
    Ok(Context::from_pairs(pairs)?)
}

fn text(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), Value::new_string(value.to_owned()))
}

fn truth(name: &str, value: bool) -> (String, Value) {
    (name.to_owned(), Value::new_bool(value))
}

fn number(name: &str, value: u64) -> (String, Value) {
    let bounded = i64::try_from(value).unwrap_or(i64::MAX);
    (name.to_owned(), Value::new_long(bounded))
}
