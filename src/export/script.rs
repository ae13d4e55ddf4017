//! The script for Keycloak's `kcadm.sh`.

use std::fmt::Write as _;

/// Adds the commands.
///
/// Client scopes that are there stay as they are, and nothing is taken away. Keycloak has no client scope `openid`, and takes it
/// from every client.
pub(super) fn keycloak(text: &mut String, supported: &[&str], omitted: &[&str]) {
    text.push_str(
        "# Needs a session of an administrator: `kcadm.sh config credentials ...`. Run it with the realm in REALM, and in KCADM the\n\
         # path of `kcadm.sh` if it is not in PATH.\n\
         set -eu\n\
         : \"${REALM:?set it to the realm}\" \"${KCADM:=kcadm.sh}\"\n\
         known=$(\"$KCADM\" get client-scopes -r \"$REALM\" --fields id,name --format csv --noquotes)\n\
         scope() { # NAME: its id, of a new one if there is none\n\
         \x20   id=$(printf '%s\\n' \"$known\" | awk -F, -v name=\"$1\" '$2 == name { print $1; exit }')\n\
         \x20   [ -n \"$id\" ] || id=$(\"$KCADM\" create client-scopes -r \"$REALM\" -i -s name=\"$1\" -s protocol=openid-connect \\\n\
         \x20       -s 'attributes.\"include.in.token.scope\"=true')\n\
         \x20   printf '%s\\n' \"$id\"\n\
         }\n\
         given=$(for kind in default optional; do\n\
         \x20   \"$KCADM\" get \"realms/$REALM/default-$kind-client-scopes\" --fields name --format csv --noquotes\n\
         done)\n\
         optional() { # NAME: new clients may ask for it, if it is not given to them already\n\
         \x20   id=$(scope \"$1\")\n\
         \x20   printf '%s\\n' \"$given\" | grep -Fxq -e \"$1\" ||\n\
         \x20       \"$KCADM\" update \"realms/$REALM/default-optional-client-scopes/$id\" -b '{}'\n\
         }\n",
    );
    for name in supported.iter().filter(|name| **name != "openid") {
        let quoted = shell(name);
        if omitted.contains(name) {
            _ = writeln!(text, "optional {quoted} # for clients that register without scope");
        } else {
            _ = writeln!(text, "scope {quoted} >/dev/null");
        }
    }
    let allowed: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
    text.push_str(
        "# What a client may register with, without and with a token.\n\
         for kind in anonymous authenticated; do\n\
         \x20   id=$(\"$KCADM\" get components -r \"$REALM\" -q type=org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy \\\n\
         \x20       --fields id,providerId,subType --format csv --noquotes | awk -F, -v kind=\"$kind\" \\\n\
         \x20       '$2 == \"allowed-client-templates\" && $3 == kind { print $1; exit }')\n\
         \x20   [ -n \"$id\" ] || { echo \"the realm has no policy 'Allowed Client Scopes' for $kind registrations\" >&2; exit 1; }\n",
    );
    let list = shell(&format!("config.\"allowed-client-scopes\"=[{}]", allowed.join(",")));
    _ = writeln!(text, "    \"$KCADM\" update \"components/$id\" -r \"$REALM\" -s {list}");
    text.push_str("done\n");
}

/// A word for a POSIX shell, whatever is in it.
fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
