// Package scopewardv1 is the gRPC API of Scopeward, generated from proto/scopeward/v1.
//
// Package scopeward is made on top of it and is what authorization servers use. A program that needs a message or a call of
// the API itself takes this package: code that it generates from the same files cannot be linked together with this one.
package scopewardv1
