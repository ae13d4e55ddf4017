/**
 * Makes a Spring Authorization Server ask Scopeward.
 *
 * <p>The starter attaches itself to each security filter chain that has an {@code OAuth2AuthorizationServerConfigurer}, whoever made it,
 * and fails the start of the application if it could not. What is asked:
 *
 * <ul>
 *   <li>registration (RFC 7591), also that of OpenID Connect: last, after the server has checked everything else
 *   <li>the authorization endpoint: before and after the login, with the same correlation id; a denial is sent only after the redirect URI
 *       was checked (RFC 6749 section 4.1.2.1)
 *   <li>pushed authorization requests (RFC 9126): when they are pushed, and again when they are used
 *   <li>device authorization requests (RFC 8628)
 * </ul>
 *
 * <p>The token endpoint does not ask: a refresh keeps the scopes of its grant (RFC 6749 section 6), and client credentials and token
 * exchange are compared with the stored scopes, by the server. The scopes of a stored client never change by an authorization request.
 *
 * <p>Where there is no answer nothing is granted and nothing stored.
 */
package dev.scopeward.spring;
