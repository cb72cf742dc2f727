//! `invite`: asks the running node, which must be one of an issuer, for an invitation.

use super::args::InviteArgs;
use crate::admin::protocol::Request;

/// The request of `invite`.
pub(super) fn request(args: &InviteArgs) -> Request {
    Request::Invite {
        subject: args.subject.clone(),
        groups: args.groups.clone(),
        open_for: args.expires,
        addresses: args.addresses.iter().map(ToString::to_string).collect(),
    }
}
