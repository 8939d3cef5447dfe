//! What a fresh cluster already has: namespaces.

use std::sync::Arc;

use muster_store::ObjectKey;
use serde_json::json;

use crate::app::App;
use crate::auth::User;
use crate::objects::{Ownership, Scope};
use crate::request::WriteOptions;
use crate::status::ApiResult;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Creates what is missing.
pub(crate) async fn fill(app: &Arc<App>) -> ApiResult<()> {
    let Some(namespaces) = app.registry.snapshot().find("", "v1", "namespaces") else { return Ok(()) };
    let user = User::system();
    let options = WriteOptions::default();
    for name in NAMESPACES {
        if app.store.get(&ObjectKey::new("core/namespaces", "", name)).is_some() {
            continue;
        }
        let mut warnings = Vec::new();
        let mut scope = Scope {
            app,
            resource: &namespaces,
            namespace: "",
            user: &user,
            options: &options,
            default_manager: "kube-apiserver",
            ownership: Ownership::Writer,
            warnings: &mut warnings,
        };
        scope.create(json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } })).await?;
    }
    Ok(())
}
