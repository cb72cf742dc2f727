//! The schema, parsed once, and the names in it that every request needs.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use super::{Action, error::clean};

/// The schema's text: what a policy may speak of.
pub const SCHEMA: &str = include_str!("../../config/policies/schema.cedarschema");

/// The id of the sandbox.
const SANDBOX: &str = "local";

/// See the module.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) schema: Schema,
    group: EntityTypeName,
    tree: EntityTypeName,
    peer: EntityTypeName,
    node: EntityTypeName,
    topic: EntityTypeName,
    pub(super) sandbox: EntityUid,
    actions: [EntityUid; Action::JUDGED.len()],
}

static NAMES: LazyLock<Result<Names, String>> = LazyLock::new(Names::parse);

impl Names {
    /// The names.
    ///
    /// # Errors
    /// That the schema that came with the program cannot be read; a test reads it.
    pub(super) fn get() -> Result<&'static Self, &'static str> {
        NAMES.as_ref().map_err(String::as_str)
    }

    fn parse() -> Result<Self, String> {
        let kind = |name: &str| -> Result<EntityTypeName, String> {
            name.parse().map_err(|error| clean(&format!("{error}")))
        };
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| clean(&error.to_string()))?;
        let action_kind = kind("Qb::Action")?;
        let action = |one: Action| uid(&action_kind, one.name());
        Ok(Self {
            schema,
            group: kind("Qb::Group")?,
            tree: kind("Qb::TopicTree")?,
            peer: kind("Qb::Peer")?,
            node: kind("Qb::Node")?,
            topic: kind("Qb::Topic")?,
            sandbox: uid(&kind("Qb::Sandbox")?, SANDBOX),
            actions: Action::JUDGED.map(action),
        })
    }

    pub(super) fn action(&self, action: Action) -> Option<&EntityUid> {
        let mut pairs = Action::JUDGED.iter().zip(&self.actions);
        pairs.find(|(one, _)| **one == action).map(|(_, uid)| uid)
    }

    pub(super) fn group(&self, name: &str) -> EntityUid {
        uid(&self.group, name)
    }

    pub(super) fn tree(&self, prefix: &str) -> EntityUid {
        uid(&self.tree, prefix)
    }

    pub(super) fn peer(&self, id: &str) -> EntityUid {
        uid(&self.peer, id)
    }

    pub(super) fn node(&self, id: &str) -> EntityUid {
        uid(&self.node, id)
    }

    pub(super) fn topic(&self, name: &str) -> EntityUid {
        uid(&self.topic, name)
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}
