package dev.scopeward.client;

import java.util.List;
import java.util.Map;

/**
 * What the policy says about one audience. Lists are in policy order and may be empty.
 *
 * @param audience spelled as in the policy
 * @param scopesSupported the supported scopes without the forbidden ones
 * @param advertisedScopes what belongs into {@code scopes_supported} of discovery documents (RFC 8414 section 2)
 * @param baselineClientScopes in every client's set
 * @param defaultClientScopes what stands in for an omitted scope at registration
 * @param privilegedScopes never granted unless asked for
 * @param stepUpScopes may be authorized although never registered
 * @param scopeMatching {@code exact}, {@code hierarchic} or {@code wildcard}
 * @param scopeDescriptions texts for consent pages, by scope
 * @param description what the audience is, for people; may be empty
 * @param aliases other spellings that mean this audience
 */
public record AudienceDescription(
        String audience,
        List<String> scopesSupported,
        List<String> advertisedScopes,
        List<String> baselineClientScopes,
        List<String> defaultClientScopes,
        List<String> privilegedScopes,
        List<String> stepUpScopes,
        String scopeMatching,
        Map<String, String> scopeDescriptions,
        String description,
        List<String> aliases) {}
