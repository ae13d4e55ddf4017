/** What gRPC loads by name. Not for use. */
package dev.scopeward.client.internal;
