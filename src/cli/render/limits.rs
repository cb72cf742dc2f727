//! `quantraband limits`.

use serde::Serialize;

use crate::{
    admin::protocol::LimitReport,
    cli::{exit::CliError, output::Out},
};

pub(super) fn answer(limits: &[LimitReport], out: &Out) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Limits<'a> {
        limits: &'a [LimitReport],
    }
    out.answer("quantraband.limits/1", &Limits { limits }, || {
        let rows: Vec<_> = limits.iter().map(row).collect();
        out.table(["limit", "value", "in use", "origin"], &rows)
    })
}

fn row(limit: &LimitReport) -> [String; 4] {
    let used = match limit.used {
        None => "-".to_owned(),
        Some(bytes) if limit.name == "limits.memory" => format!("{} MB", bytes / 1_000_000),
        Some(count) => count.to_string(),
    };
    let LimitReport {
        name,
        value,
        origin,
        ..
    } = limit;
    [name.clone(), value.clone(), used, origin.clone()]
}
