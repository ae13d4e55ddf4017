package dev.scopeward.client;

import java.io.Serializable;

/**
 * The policy set that decided.
 *
 * @param generation counts the accepted sets of one server process, from 1
 * @param digest {@code sha256:} and 64 hex digits; equal on all servers with equal policies
 * @serial exclude
 */
public record PolicyVersion(long generation, String digest) implements Serializable {
    private static final long serialVersionUID = 1L;
}
