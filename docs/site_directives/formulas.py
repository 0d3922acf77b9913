"""The formula of each measure, in the symbols of docs/reference/measures.md; without one, words are shown."""

_RANK = r"\exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \frac{\sigma_k}{\sum_l \sigma_l}"
_PARTICIPATION = r"\frac{\bigl(\sum_k \sigma_k^2\bigr)^2}{\sum_k \sigma_k^4}"
_NESUM = r"\frac{\sum_k \sigma_k^2}{\sigma_1^2}"
_COUNT = r"\#\bigl\{k : \sigma_k^2 > 10^{-5} \sigma_1^2\bigr\}"

FORMULAS = {
    "nc1": r"\frac{\operatorname{tr} \Sigma_W}{\operatorname{tr} \Sigma_B}",
    "nc1_sample": r"\frac{\operatorname{tr} \Sigma_W}{\sum_c \frac{n_c}{N} \lVert \mu_c - \bar z \rVert^2}",
    "nc1_pinv": r"\frac{1}{C} \operatorname{tr}\bigl(\Sigma_W \Sigma_B^{+}\bigr)",
    "nc1_rank": _COUNT,
    "nc1_outside_span": r"1 - \frac{\operatorname{tr}(P \Sigma_W)}{\operatorname{tr} \Sigma_W}",
    "cdnv": r"\frac{1}{C (C - 1)} \sum_{a \ne b} \frac{v_a + v_b}{2 \lVert \mu_a - \mu_b \rVert^2}",
    "nc2_etf": r"\Bigl\lVert \frac{M M^\top}{\lVert M M^\top \rVert_F}"
    r" - \frac{I - \frac{1}{C} 1 1^\top}{\sqrt{C - 1}} \Bigr\rVert_F",
    "distance_to_optimum": r"\Bigl\lVert \frac{U U^\top}{\lVert U U^\top \rVert_F}"
    r" - \frac{G}{\lVert G \rVert_F} \Bigr\rVert_F",
    "nc2_equinorm": r"\frac{\operatorname{std}_c \lVert m_c \rVert}{\operatorname{mean}_c \lVert m_c \rVert}",
    "nc2_equiangular": r"\operatorname{std}_{a \ne b} \cos(m_a, m_b)",
    "nc2_maxangle": r"\operatorname{mean}_{a \ne b} \Bigl| \cos(m_a, m_b) + \frac{1}{C - 1} \Bigr|",
    "nc2_tight_frame": r"\Bigl\lVert \frac{M^\top M}{\lVert M^\top M \rVert_F} - \frac{I}{\sqrt d} \Bigr\rVert_F",
    "nc2_max_cosine": r"\max_{a \ne b} \cos(m_a, m_b)",
    "nc3": r"\Bigl\lVert \frac{W}{\lVert W \rVert_F} - \frac{M}{\lVert M \rVert_F} \Bigr\rVert_F",
    "nc4": r"\frac{1}{N} \#\Bigl\{i : \operatorname{argmax}_c (w_c \cdot z_i + b_c)"
    r" \ne \operatorname{argmin}_c \lVert z_i - \mu_c \rVert\Bigr\}",
    "zero_sum": r"\Bigl\lVert \frac{1}{C} \sum_c \mu_c \Bigr\rVert",
    "unit_norm": r"\frac{1}{C} \sum_c \bigl| \lVert \mu_c \rVert - 1 \bigr|",
    "equal_inner_product": r"\operatorname{mean}_{a \ne b} \Bigl| \cos(\mu_a, \mu_b) + \frac{1}{C - 1} \Bigr|",
    "within_class_variation": r"\frac{1}{C} \sum_c \frac{1}{n_c} \sum_{i : y_i = c} \lVert z_i - \mu_c \rVert",
    "effective_rank": _RANK,
    "participation_ratio": _PARTICIPATION,
    "nesum": _NESUM,
    "lidar": r"\exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \frac{\lambda_k}{\sum_l \lambda_l}, \qquad"
    r" \lambda_k = \operatorname{eig}_k\bigl(S^{-1/2} \Sigma_B S^{-1/2}\bigr), \qquad S = \Sigma_W + \delta I",
    "feature_effective_rank": _RANK,
    "feature_participation_ratio": _PARTICIPATION,
    "feature_nesum": _NESUM,
    "feature_stable_rank": _NESUM,
    "feature_rank": _COUNT,
    "feature_alpha_req": r"\alpha \quad \text{of the fit} \quad \sigma_k^2 \propto k^{-\alpha}",
    "rankme": r"\exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \frac{\sigma_k}{\sum_l \sigma_l} + 10^{-7}",
    "wasserstein_uniformity": r"\sqrt{\lVert \bar z \rVert^2 + \sum_k \Bigl(\sqrt{\lambda_k}"
    r" - \frac{1}{\sqrt d}\Bigr)^2} \quad \text{for} \quad \frac{1}{N} \sum_i \lVert z_i \rVert^2 = 1",
    "intrinsic_dimension": r"\Bigl(\frac{1}{N (k - 1)} \sum_i \sum_{j < k} \log \frac{T_k(z_i)}{T_j(z_i)}\Bigr)^{-1}",
    "nc5": r"\frac{1}{C} \sum_c \bigl| \cos(\mu_c, \bar z_{\text{ood}}) \bigr|",
    "ncc_accuracy": r"\frac{1}{N} \#\bigl\{i : \operatorname{argmin}_c \lVert z_i - \mu_c \rVert = y_i\bigr\}",
}
