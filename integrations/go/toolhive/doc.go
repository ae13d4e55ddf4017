// Package scopewardtoolhive makes the embedded authorization server of ToolHive ask Scopeward which scopes a client may have.
//
// [New] takes the place of authserver.New. It puts a decorator around the storage and a handler in front of the endpoints; ToolHive
// itself is unchanged. What is asked, and what is not, is in the guide of the repository, docs/guides/toolhive.md.
package scopewardtoolhive
