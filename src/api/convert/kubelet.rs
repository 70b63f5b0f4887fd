//! Moves the kubelet block of a pool to its node class, and splits a class that would get different ones.

use serde_json::{Map, Value};

use super::{Log, Note, Piece, Scope, name_of};
use crate::api::validate::FieldError;

/// Takes the fields that moved along out of an old block; drops what is gone.
pub(super) fn renewed(
    scope: &mut Scope<'_>,
    mut block: Map<String, Value>,
    path: &str,
) -> Map<String, Value> {
    if block.remove("containerRuntime").is_some() {
        scope.note(&format!("{path}.containerRuntime"), "dropped: containerd is the only one");
    }
    block.retain(|_, value| !value.is_null());
    if !block.is_empty() {
        scope.note(path, "moved to spec.kubelet of the EC2NodeClass");
    }
    block
}

/// A kubelet block and the pools that want it.
struct Wish {
    block: Map<String, Value>,
    /// Places of the pools among the pieces.
    pools: Vec<usize>,
    /// Whether the block belongs to the class under its own name, whoever else wants it.
    is_own: bool,
}

/// Gives every class the block that its pools carried.
pub(super) fn place(mut pieces: Vec<Piece>, log: &mut Log) -> Vec<Piece> {
    let mut at = 0;
    while at < pieces.len() {
        let copies = match &pieces[at] {
            Piece::Class { value, .. }
                if value["spec"].is_object() && !class_name(value).is_empty() =>
            {
                let wishes = wishes_for(value, &pieces);
                settle(&mut pieces, at, wishes, log)
            }
            _ => Vec::new(),
        };
        at += 1;
        for copy in copies {
            pieces.insert(at, copy);
            at += 1;
        }
    }
    homeless(&pieces, log);
    pieces
}

fn class_name(value: &Value) -> &str {
    value["metadata"]["name"].as_str().unwrap_or_default()
}

fn wanted_class(pool: &Value) -> &str {
    pool["spec"]["template"]["spec"]["nodeClassRef"]["name"].as_str().unwrap_or_default()
}

/// The different blocks that the pools of a class want, in the order of the pools.
fn wishes_for(class: &Value, pieces: &[Piece]) -> Vec<Wish> {
    let own = class["spec"]["kubelet"].as_object().cloned();
    let mut wishes: Vec<Wish> = own.iter().map(|block| wish(block.clone(), true)).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let Piece::Pool { value, kubelet, .. } = piece else { continue };
        if wanted_class(value) != class_name(class) {
            continue;
        }
        // A pool of the current version takes the class as it is, and so does a pool that says nothing.
        let as_is = own.clone().unwrap_or_default();
        let (block, is_own) = match kubelet {
            Some(block) if !block.is_empty() => (block.clone(), false),
            _ => (as_is, true),
        };
        if let Some(wish) = wishes.iter_mut().find(|wish| wish.block == block) {
            wish.pools.push(at);
            wish.is_own |= is_own;
        } else {
            let mut wish = wish(block, is_own);
            wish.pools.push(at);
            wishes.push(wish);
        }
    }
    wishes
}

fn wish(block: Map<String, Value>, is_own: bool) -> Wish {
    Wish { block, pools: Vec::new(), is_own }
}

/// Writes the first block into the class, and makes a copy of the class for each further one.
fn settle(pieces: &mut [Piece], at: usize, mut wishes: Vec<Wish>, log: &mut Log) -> Vec<Piece> {
    wishes.sort_by_key(|wish| !wish.is_own);
    let Piece::Class { source, value, .. } = &mut pieces[at] else {
        return Vec::new();
    };
    let (source, class) = (source.clone(), value.clone());
    let mut wishes = wishes.into_iter();
    if let Some(first) = wishes.next() {
        write_block(value, first.block);
    }
    let mut copies = Vec::new();
    for wish in wishes {
        let Some(first) = wish.pools.first() else { continue };
        let pool = match &pieces[*first] {
            Piece::Pool { value, .. } => class_name(value).to_owned(),
            _ => continue,
        };
        let name = format!("{}-{pool}", class_name(&class));
        let mut copy = class.clone();
        copy["metadata"]["name"] = name.as_str().into();
        write_block(&mut copy, wish.block);
        log.notes.push(Note {
            object: source.clone(),
            field: "spec.kubelet".to_owned(),
            message: format!(
                "copied to EC2NodeClass/{name}: its pools have different kubelet blocks"
            ),
        });
        for index in wish.pools {
            if let Piece::Pool { value, .. } = &mut pieces[index] {
                value["spec"]["template"]["spec"]["nodeClassRef"]["name"] = name.as_str().into();
            }
        }
        copies.push((name, copy));
    }
    copies
        .into_iter()
        .map(|(name, value)| Piece::Class {
            source: format!("{source}, copied as {name}"),
            value,
            is_new: true,
        })
        .collect()
}

fn write_block(class: &mut Value, block: Map<String, Value>) {
    if !block.is_empty() {
        class["spec"]["kubelet"] = Value::Object(block);
    }
}

/// Reports blocks whose class is not among the objects.
fn homeless(pieces: &[Piece], log: &mut Log) {
    let is_there = |name: &str| {
        pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Class { value, .. } if class_name(value) == name))
    };
    for piece in pieces {
        let Piece::Pool { source, value, kubelet: Some(block) } = piece else {
            continue;
        };
        let class = wanted_class(value);
        if !block.is_empty() && !is_there(class) {
            let field = if source.starts_with("Provisioner/") {
                "spec.kubeletConfiguration"
            } else {
                "spec.template.spec.kubelet"
            };
            let mut error = FieldError::new(
                field,
                &Value::Null,
                "belongs to the node class, which is not given",
            );
            error.fix =
                Some(format!("convert the node class {class} together with {}", name_of(value)));
            log.errors.push(super::ObjectError { object: source.clone(), error });
        }
    }
}
