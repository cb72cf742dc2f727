//! The invitation: one text that lets one new node be enrolled, once and for a while.
//!
//! An issuer's node makes a [`Token`]; whoever holds it may ask that node for the credential the
//! operator decided on. It names the node (its PeerId and addresses) and the issuer's key by its
//! thumbprint, so that the invited node believes nobody else, and holds a secret of 256 bits.
//!
//! The secret never crosses the line. Its holder proves it over one channel: an HMAC-SHA-256, with
//! a key derived from the secret, of what both ends of that channel alone know
//! ([`Channel::statement`]); a proof that was overheard is good for nothing. The issuer's node
//! keeps that key, a hash, and not the secret. Format of the text: `docs/reference/enrolment.md`.
//!
//! Pure. Owner: the identity room. It fails with [`TokenError`].

use std::fmt;

use ciborium::Value;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    Thumbprint,
    binding::{Channel, Role},
    claims::MAX_SECONDS,
};
use crate::{
    cbor::{self, Fields, Malformed},
    types::{PeerId, Timestamp},
};

/// Bytes of an invitation's name.
pub const INVITATION_ID_BYTES: usize = 16;
/// Bytes of the secret: nobody guesses 256 bits, also not with Grover's algorithm.
pub const SECRET_BYTES: usize = 32;
/// Bytes of a proof (HMAC-SHA-256).
const MAC_BYTES: usize = 32;
/// Most addresses of the inviting node in a token.
pub const MAX_ADDRESSES: usize = 8;
/// Longest address, in characters.
pub const MAX_ADDRESS: usize = 256;
/// Longest token, in characters: eight addresses of the longest kind.
pub const MAX_TOKEN: usize = 4 * 1024;
/// What a token begins with; its number changes with the format.
pub const TOKEN_PREFIX: &str = "qbj1";

/// Bytes of the checksum: a slip of the hand is found, a forgery is not its business.
const CHECKSUM: usize = 4;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

const F_PEER: i64 = 1;
const F_ISSUER: i64 = 2;
const F_ID: i64 = 3;
const F_SECRET: i64 = 4;
const F_EXPIRES: i64 = 5;
const F_ADDRESSES: i64 = 6;

/// An invitation's name.
pub type InvitationId = [u8; INVITATION_ID_BYTES];

/// Why a text is no token. It never quotes the text: a token is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It does not begin as one.
    #[error("this is no invitation: one begins with `{TOKEN_PREFIX}`")]
    Prefix,
    /// A character is wrong, missing, or too many.
    #[error("the invitation was not copied as a whole, or a character was changed")]
    Checksum,
    /// Not the one encoding.
    #[error("the invitation: {0}")]
    Malformed(#[from] Malformed),
}

/// What an invitation's secret becomes: the key of its proofs, and what the issuer's node keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationKey(Zeroizing<[u8; 32]>);

impl InvitationKey {
    /// The key of a secret.
    #[must_use]
    pub fn of(secret: &[u8; SECRET_BYTES]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"quantraband/invitation/1");
        hash.update(secret);
        Self(Zeroizing::new(hash.finalize().into()))
    }

    /// From what was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// What is kept.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        *self.0
    }

    /// Proves the secret of `id` over `channel`, as the end of `role`.
    #[must_use]
    pub fn prove(&self, id: InvitationId, channel: &Channel, role: Role) -> InvitationProof {
        let mac = self.mac(&id, channel, role).finalize().into_bytes().into();
        InvitationProof { id, mac }
    }

    /// Whether the end of `role` proved the secret over `channel`; in constant time.
    #[must_use]
    pub fn verify(&self, proof: &InvitationProof, channel: &Channel, role: Role) -> bool {
        let mac = self.mac(&proof.id, channel, role);
        mac.verify_slice(&proof.mac).is_ok()
    }

    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    fn mac(&self, id: &InvitationId, channel: &Channel, role: Role) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("a key of 32 bytes");
        mac.update(b"quantraband/invitation-proof/1");
        mac.update(id);
        mac.update(&channel.statement(role));
        mac
    }
}

impl fmt::Debug for InvitationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationKey(secret)")
    }
}

/// Which invitation, and a proof of its secret over one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvitationProof {
    /// Which.
    pub id: InvitationId,
    /// The proof.
    pub mac: [u8; MAC_BYTES],
}

impl InvitationProof {
    /// Name and proof, one after the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.id[..], &self.mac].concat()
    }

    /// What [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; INVITATION_ID_BYTES + MAC_BYTES]) -> Self {
        let (mut id, mut mac) = ([0; INVITATION_ID_BYTES], [0; MAC_BYTES]);
        let (first, second) = bytes.split_at(INVITATION_ID_BYTES);
        id.copy_from_slice(first);
        mac.copy_from_slice(second);
        Self { id, mac }
    }
}

/// What the operator hands to a new node.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The node to ask.
    pub peer: PeerId,
    /// The issuer's keys, by their thumbprint.
    pub issuer: Thumbprint,
    /// The invitation's name.
    pub id: InvitationId,
    /// What makes its holder the invited one.
    pub secret: Zeroizing<[u8; SECRET_BYTES]>,
    /// Until when it can be used, in whole seconds.
    pub expires: Timestamp,
    /// Where the node can be reached, as multiaddresses without `/p2p`; at most
    /// [`MAX_ADDRESSES`] of [`MAX_ADDRESS`] characters.
    pub addresses: Vec<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret)", hex::encode(self.id))
    }
}

impl Token {
    /// The text, to be handed over as a secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.encode());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut text = String::with_capacity(TOKEN_PREFIX.len() + bytes.len() * 2);
        text.push_str(TOKEN_PREFIX);
        base32(&bytes, &mut text);
        Zeroizing::new(text)
    }

    /// Reads a text; white space at its ends does not matter, nor do capitals.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(TokenError::Prefix);
        }
        let text = Zeroizing::new(text.to_ascii_lowercase());
        let digits = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = Zeroizing::new(from_base32(digits).ok_or(TokenError::Checksum)?);
        let body = bytes.len().checked_sub(CHECKSUM);
        let (body, sum) = body
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(TokenError::Checksum)?;
        if checksum(body) != sum {
            return Err(TokenError::Checksum);
        }
        Ok(Self::decode(body)?)
    }

    fn encode(&self) -> Vec<u8> {
        let addresses = self.addresses.iter().cloned().map(Value::from).collect();
        cbor::encode(&cbor::int_map([
            (F_PEER, Value::Bytes(self.peer.key_bytes().to_vec())),
            (F_ISSUER, Value::Bytes(self.issuer.0.to_vec())),
            (F_ID, Value::Bytes(self.id.to_vec())),
            (F_SECRET, Value::Bytes(self.secret.to_vec())),
            (F_EXPIRES, Value::from(self.expires.secs())),
            (F_ADDRESSES, Value::Array(addresses)),
        ]))
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(cbor::decode(bytes, MAX_TOKEN)?)?;
        let peer = PeerId::from_key_bytes(cbor::exact(fields.need(F_PEER)?)?)
            .map_err(|_| Malformed("the node's key is none"))?;
        let expires = cbor::uint(fields.need(F_EXPIRES)?)?;
        if expires > MAX_SECONDS {
            return Err(Malformed("a time is out of range"));
        }
        let token = Self {
            peer,
            issuer: Thumbprint(cbor::exact(fields.need(F_ISSUER)?)?),
            id: cbor::exact(fields.need(F_ID)?)?,
            secret: Zeroizing::new(cbor::exact(fields.need(F_SECRET)?)?),
            expires: Timestamp::from_secs(expires),
            addresses: cbor::array(fields.need(F_ADDRESSES)?, MAX_ADDRESSES)?
                .into_iter()
                .map(|address| {
                    let address = cbor::text(address)?;
                    if address.len() > MAX_ADDRESS {
                        return Err(Malformed("an address is too long"));
                    }
                    Ok(address)
                })
                .collect::<Result<_, _>>()?,
        };
        fields.finish()?;
        cbor::same(bytes, &token.encode())?;
        Ok(token)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::new().chain_update(TOKEN_PREFIX).chain_update(bytes);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(hash.finalize().get(..CHECKSUM).unwrap_or(&[0; CHECKSUM]));
    sum
}

/// RFC 4648 base 32, in small letters and without padding.
fn base32(bytes: &[u8], out: &mut String) {
    let (mut held, mut bits) = (0_u32, 0);
    let mut push = |five: u32| {
        let index = usize::try_from(five & 31).unwrap_or_default();
        out.push(char::from(ALPHABET.get(index).copied().unwrap_or_default()));
    };
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
        held &= 31;
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
}

/// `None` for a character that is none of the alphabet, or digits left over that are not zero.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let five = ALPHABET.iter().position(|known| *known == letter)?;
        held = (held << 5) | u32::try_from(five).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from((held >> bits) & 0xff).ok()?);
        }
        held &= 0xff;
    }
    (bits < 5 && held & ((1 << bits) - 1) == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::testing::{acme, channel, mallory, node};

    fn token() -> Token {
        Token {
            peer: node().peer(),
            issuer: acme().public().thumbprint(),
            id: [7; INVITATION_ID_BYTES],
            secret: Zeroizing::new([9; SECRET_BYTES]),
            expires: Timestamp::from_secs(1_800_000_000),
            addresses: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
        }
    }

    #[test]
    fn a_token_reads_back_whatever_its_case_and_the_space_around_it() {
        let text = token().to_text();
        assert_eq!(Token::from_text(&text).unwrap(), token());
        let shouted = format!("  {}\n", text.to_ascii_uppercase());
        assert_eq!(Token::from_text(&shouted).unwrap(), token());
        let debug = format!("{:?}", token());
        assert!(!debug.contains("9, 9"), "{debug}");
    }

    #[test]
    fn every_changed_character_is_found() {
        let text = token().to_text().to_string();
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            assert!(Token::from_text(std::str::from_utf8(&other).unwrap()).is_err());
            assert!(Token::from_text(&text[..at]).is_err());
        }
        assert!(Token::from_text(&format!("{text}a")).is_err());
        assert_eq!(Token::from_text("hello"), Err(TokenError::Prefix));
        assert!(Token::from_text(&"q".repeat(MAX_TOKEN + 1)).is_err());
    }

    #[test]
    fn a_proof_is_of_one_secret_one_channel_and_one_end() {
        let key = InvitationKey::of(&[9; SECRET_BYTES]);
        let channel = channel();
        let proof = key.prove([7; 16], &channel, Role::Opener);
        assert!(key.verify(&proof, &channel, Role::Opener));
        assert!(!key.verify(&proof, &channel, Role::Listener));
        let other = InvitationKey::of(&[8; SECRET_BYTES]);
        assert!(!other.verify(&proof, &channel, Role::Opener));
        let renamed = InvitationProof {
            id: [6; 16],
            ..proof
        };
        assert!(!key.verify(&renamed, &channel, Role::Opener));
        // A man in the middle has two channels, with two bindings.
        let relayed = Channel {
            opener: mallory().peer(),
            ..channel
        };
        assert!(!key.verify(&proof, &relayed, Role::Opener));
        assert_ne!(key.to_bytes(), [9; SECRET_BYTES], "the secret is not kept");
    }

    proptest! {
        #[test]
        fn base_32_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut text = String::new();
            base32(&bytes, &mut text);
            prop_assert_eq!(from_base32(&text), Some(bytes));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = Token::from_text(&text);
            let _ = Token::from_text(&format!("{TOKEN_PREFIX}{text}"));
        }

        #[test]
        fn a_token_survives_its_text(
            id in any::<[u8; 16]>(), secret in any::<[u8; 32]>(), at in 0..MAX_SECONDS,
            addresses in proptest::collection::vec("[a-z/0-9]{0,40}", 0..=MAX_ADDRESSES),
        ) {
            let secret = Zeroizing::new(secret);
            let expires = Timestamp::from_secs(at);
            let token = Token { id, secret, expires, addresses, ..token() };
            prop_assert_eq!(Token::from_text(&token.to_text()), Ok(token));
        }
    }
}
