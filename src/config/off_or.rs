//! An address, or `"off"`: a key that has a default needs a word for "none".

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

const OFF: &str = "off";

pub(super) fn serialize<S: Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(OFF),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == OFF {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(format!(
            "`{}` is neither an address with a port nor \"off\"",
            text.escape_debug()
        ))
    })
}
