"""Slow, obvious float64 numpy reference for representation-geometry metrics.

Independent of any library code: explicit Python loops, direct definitions, no streaming and no shortcuts.
"""

import numpy as np
from scipy.linalg import sqrtm

F = np.float64
EPS = np.finfo(F).eps
RTOL_EIG = 1e-5  # default, dtype-independent cut-off on EIGENVALUES of Sigma_B (relative to the largest)
ZERO = (64 * EPS) ** 2  # a trace below ZERO * mean||x||^2 is treated as exactly zero


# ------------------------------------------------------------------ class statistics
def class_stats(X, y):
    classes = sorted(set(int(c) for c in y))
    n, mu, S = [], [], []
    for c in classes:
        Xc = X[y == c]
        m = sum(Xc[i] for i in range(len(Xc))) / len(Xc)
        Sc = np.zeros((X.shape[1],) * 2)
        for i in range(len(Xc)):
            r = Xc[i] - m
            Sc += np.outer(r, r)
        n.append(len(Xc))
        mu.append(m)
        S.append(Sc / len(Xc))  # population covariance (ddof = 0)
    return classes, np.array(n, F), np.array(mu), np.array(S)


def eig_desc(S):
    return np.clip(np.linalg.eigvalsh((S + S.T) / 2)[::-1], 0, None)


def entropy_rank(s):
    s = np.asarray(s, F)
    if s.sum() <= 0:
        return 0.0
    p = s / s.sum()
    return float(np.exp(-sum(pi * np.log(pi) for pi in p if pi > 0)))


def offdiag(G):
    C = len(G)
    return np.array([G[i, j] for i in range(C) for j in range(C) if i != j])


# ------------------------------------------------------------------ NC1
def nc1_pinv(SW, M_centered, weights, C, rtol_eig):
    """tr(SW SB^+)/C with SB = sum_c weights_c m_c m_c^T; SVD of the centered means, never of SB."""
    A = np.sqrt(weights)[:, None] * M_centered
    s, Vt = np.linalg.svd(A, full_matrices=False)[1:]
    if s[0] == 0:
        return 0.0, 0
    keep = s**2 > rtol_eig * s[0] ** 2
    val = sum((v @ SW @ v) / si**2 for si, v, k in zip(s, Vt, keep) if k)
    return float(val / C), int(keep.sum())


def nc1_resolved(SW, M_centered, n, C):
    """pinv form over the directions in which the class means stand above their own sampling noise:
    lambda_k > 1.5 (1 + sqrt(d/C))^2 (v_k^T SW v_k) / n_harmonic   (Marchenko-Pastur edge x 1.5) and lambda_k > 1e-20 lambda_1."""
    d = M_centered.shape[1]
    nh = 1 / np.mean(1 / n)
    s, Vt = np.linalg.svd(M_centered / np.sqrt(C), full_matrices=False)[1:]
    val, r = 0.0, 0
    for si, v in zip(s, Vt):
        w = v @ SW @ v
        if si**2 > 1e-20 * s[0] ** 2 and si**2 > 1.5 * (1 + np.sqrt(d / C)) ** 2 * w / nh:
            val, r = val + w / si**2, r + 1
    return (float(val / C), r) if r else (float("inf"), 0)


def cdnv_pairs(mu, var):
    out = []
    for i in range(len(mu)):
        for j in range(i + 1, len(mu)):
            d2 = float(np.sum((mu[i] - mu[j]) ** 2))
            v = (var[i] + var[j]) / 2
            out.append(v / d2 if d2 > 0 else (np.inf if v > 0 else np.nan))
    return np.array(out)


def lidar(SW, SB, delta):
    """Effective rank of S_W^{-1/2} S_B S_W^{-1/2} with S_W + delta I, on eigenvalues (arXiv 2312.04000, no epsilon)."""
    w, V = np.linalg.eigh(SW + delta * np.eye(len(SW)))
    half = V @ np.diag(w**-0.5) @ V.T
    return entropy_rank(np.linalg.eigvalsh(half @ SB @ half).clip(0))


def gaussian_distance(m1, S1, m2, S2):
    """2-Wasserstein distance squared of two Gaussians, by matrix square roots."""
    root = sqrtm(S2)
    cross = sqrtm(root @ S1 @ root)
    return float(np.real(np.sum((m1 - m2) ** 2) + np.trace(S1 + S2 - 2 * cross)))


def intrinsic_dimension(X, k):
    """Levina & Bickel's local estimates by loops, and MacKay & Ghahramani's mean of their inverses."""
    inverses = []
    for i in range(len(X)):
        T = sorted(np.linalg.norm(X[i] - X[j]) for j in range(len(X)) if j != i)[:k]
        inverses.append(sum(np.log(T[-1] / T[j]) for j in range(k - 1)) / (k - 1))
    return 1 / np.mean(inverses)


# ------------------------------------------------------------------ all metrics
def all_metrics(X, y, C, W=None, b=None):
    X = np.asarray(X, F)
    y = np.asarray(y)
    N, d = X.shape
    classes, n, mu, Sc = class_stats(X, y)
    P = len(classes)  # classes present
    o = {
        "n_samples": N,
        "dim": d,
        "num_classes_declared": C,
        "num_classes_present": P,
        "n_min": int(n.min()),
        "n_max": int(n.max()),
        "classes_with_one_sample": int((n == 1).sum()),
    }
    scale = float(np.mean(np.sum(X * X, 1)))
    zero = ZERO * scale
    mu_cls = mu.mean(0)  # mean of class means
    mu_smp = X.mean(0)  # sample mean
    var = np.array([np.trace(s) for s in Sc])
    SW_s = sum(nc * s for nc, s in zip(n, Sc)) / N  # sample-weighted
    SW_c = sum(Sc) / P  # class-weighted
    Mc, Ms = mu - mu_cls, mu - mu_smp
    wc, ws = np.full(P, 1 / P), n / N
    SB_c = sum(np.outer(m, m) for m in Mc) / P
    SB_s = sum(w * np.outer(m, m) for w, m in zip(ws, Ms))
    nan = float("nan")

    def ratio(a, bb):
        a = 0.0 if a <= zero else a
        if bb <= zero:
            return float("inf") if a > 0 else nan
        return float(a / bb)

    # "peer" = Sigma_W over samples, Sigma_B over classes (Papyan notebook, rhubarbwu); "sample"/"class" = consistent
    for name, SW, SB, M, w in (
        ("peer", SW_s, SB_c, Mc, wc),
        ("sample", SW_s, SB_s, Ms, ws),
        ("class", SW_c, SB_c, Mc, wc),
    ):
        tw, tb = float(np.trace(SW)), float(np.trace(SB))
        o[f"nc1_quotient_{name}"] = ratio(tw, tb)
        if tb <= zero:
            o[f"nc1_pinv_{name}"] = float("inf") if tw > zero else nan
        else:
            o[f"nc1_pinv_{name}"] = nc1_pinv(SW, M, w, P, RTOL_EIG)[0]
    o["trace_sigma_w_sample"], o["trace_sigma_w_class"] = float(np.trace(SW_s)), float(np.trace(SW_c))
    o["trace_sigma_b_class"], o["trace_sigma_b_sample"] = float(np.trace(SB_c)), float(np.trace(SB_s))
    o["nc1_within_fraction_sample"] = (
        nan if np.trace(SW_s + SB_s) <= zero else float(np.trace(SW_s) / np.trace(SW_s + SB_s))
    )
    if np.trace(SB_c) > zero:
        v, r = nc1_pinv(SW_s, Mc, wc, P, RTOL_EIG)
        o["sigma_b_rank"] = r
        o["nc1_resolved_peer"], o["resolved_rank"] = nc1_resolved(SW_s, Mc, n, P)
        for nm, rt in (("torch64", max(d, d) * EPS), ("torch32", d * float(np.finfo(np.float32).eps)), ("1e-3", 1e-3)):
            vv, rr = nc1_pinv(SW_s, Mc, wc, P, rt)
            o[f"nc1_pinv_peer_rtol_{nm}"], o[f"sigma_b_rank_rtol_{nm}"] = vv, rr
        A = Mc / np.sqrt(P)
        s, Vt = np.linalg.svd(A, full_matrices=False)[1:]
        Vk = Vt[s**2 > RTOL_EIG * s[0] ** 2]
        tin = sum(v @ SW_s @ v for v in Vk)
        o["within_outside_span_fraction"] = nan if np.trace(SW_s) <= zero else float(1 - tin / np.trace(SW_s))
    else:
        o["sigma_b_rank"] = o["resolved_rank"] = 0
        o["nc1_resolved_peer"] = float("inf") if np.trace(SW_s) > zero else nan
    cd = cdnv_pairs(mu, var) if P > 1 else np.array([nan])
    o["cdnv_mean"], o["cdnv_max"], o["cdnv_median"] = float(cd.mean()), float(cd.max()), float(np.median(cd))
    dist = [np.linalg.norm(X[y == c] - m, axis=1) for c, m in zip(classes, mu)]
    o["within_l2_mean_class"] = float(np.mean([q.mean() for q in dist]))  # paper: mean over classes of mean distance
    o["within_l2_mean_sample"] = float(np.mean(np.concatenate(dist)))

    # -------------------------------------------------------------- NC2 (class means centered by mean of class means)
    nrm = np.linalg.norm(Mc, axis=1)
    ok2 = P > 1 and np.trace(SB_c) > zero
    o["nc2_equinorm_cv"] = float(nrm.std() / nrm.mean()) if ok2 else nan
    o["nc2_equinorm_cv_ddof1"] = float(nrm.std(ddof=1) / nrm.mean()) if ok2 else nan
    if ok2:
        cos = offdiag(np.array([[(a @ c) / (np.linalg.norm(a) * np.linalg.norm(c)) for c in Mc] for a in Mc]))
        G = Mc @ Mc.T
        T = (np.eye(P) - 1 / P) / np.sqrt(P - 1)
        o["nc2_equiangular_std"] = float(cos.std())
        o["nc2_maxangle_mean"] = float(np.mean(np.abs(cos + 1 / (P - 1))))
        o["nc2_maxangle_max"] = float(np.max(np.abs(cos + 1 / (P - 1))))
        o["nc2_cos_max"], o["nc2_cos_mean"] = float(cos.max()), float(cos.mean())
        o["nc2_etf_frobenius"] = float(np.linalg.norm(G / np.linalg.norm(G) - T))
        D = SB_c / np.linalg.norm(SB_c)
        o["nc2_tight_frame_error"] = float(np.linalg.norm(D - np.eye(d) / np.sqrt(d)))
        U = Mc / nrm[:, None]
        pd = np.array([np.linalg.norm(U[i] - U[j]) for i in range(P) for j in range(i + 1, P)])
        o["gnc2_kernel_dist_mean"], o["gnc2_kernel_dist_var"] = float(pd.mean()), float(pd.var())
        lk = -np.log(pd)
        o["gnc2_kernel_log_mean"], o["gnc2_kernel_log_var"] = float(lk.mean()), float(lk.var())
    else:
        for k in (
            "nc2_equiangular_std",
            "nc2_maxangle_mean",
            "nc2_maxangle_max",
            "nc2_cos_max",
            "nc2_cos_mean",
            "nc2_etf_frobenius",
            "nc2_tight_frame_error",
            "gnc2_kernel_dist_mean",
            "gnc2_kernel_dist_var",
            "gnc2_kernel_log_mean",
            "gnc2_kernel_log_var",
        ):
            o[k] = nan
    o["bound_welch_coherence"] = float(np.sqrt(max(P - d, 0) / (d * (P - 1)))) if P > 1 else nan
    o["bound_rankin_cos_max"] = -1 / (P - 1) if 1 < P <= d + 1 else 0.0  # exact for P<=2d; only a lower bound above
    o["bound_equiangular_std"] = (
        float(np.sqrt(max((P - d) / (d * (P - 1)) - 1 / (P - 1) ** 2, 0))) if d + 1 < P else 0.0
    )
    unorm = np.linalg.norm(mu, axis=1)

    # -------------------------------------------------------------- paper (arXiv 2311.05139 notebooks): uncentered means
    o["paper_zero_sum"] = float(np.linalg.norm(mu_cls))
    o["paper_unit_norm"] = float(np.mean(np.abs(unorm - 1)))
    if P > 1 and unorm.min() > 0:
        Un = mu / unorm[:, None]
        cu, ip = offdiag(Un @ Un.T), offdiag(mu @ mu.T)
        o["paper_equal_ip_cos_mean"] = float(np.mean(np.abs(cu + 1 / (P - 1))))
        o["paper_equal_ip_cos_max"] = float(np.max(np.abs(cu + 1 / (P - 1))))
        o["raw_equal_ip_mean"] = float(np.mean(np.abs(ip + 1 / (P - 1))))
    else:
        o["paper_equal_ip_cos_mean"] = o["paper_equal_ip_cos_max"] = o["raw_equal_ip_mean"] = nan
    lam = eig_desc(SB_c)
    if ok2:
        o["means_spectrum_normalized"] = [float(v) for v in (lam / lam[0])[: min(d, P)]]
        lam_svd = np.zeros(d)
        sv = np.linalg.svd(Mc, compute_uv=False)
        lam_svd[: len(sv)] = sv**2 / P
    else:
        o["means_spectrum_normalized"] = [0.0] * min(d, P)
        lam_svd = np.zeros(d)
    o["means_erank_sigma"] = entropy_rank(np.sqrt(lam_svd))  # Roy & Vetterli on the centered class-mean matrix
    o["means_erank_lambda"] = entropy_rank(lam_svd)  # same formula on covariance eigenvalues
    o["means_participation_ratio"] = float(lam_svd.sum() ** 2 / (lam_svd**2).sum()) if ok2 else 0.0
    o["means_stable_rank"] = float(lam_svd.sum() / lam_svd[0]) if ok2 else 0.0
    o["means_rank_1e-5"] = int((lam_svd > RTOL_EIG * lam_svd[0]).sum()) if ok2 else 0

    o["lidar_classes"] = lidar(SW_s, SB_c, 1e-4) if ok2 else 0.0

    # -------------------------------------------------------------- classifier: NC3, NC4, NCC
    D2 = np.array([[np.sum((x - m) ** 2) for m in mu] for x in X])
    ncc = np.array([classes[k] for k in D2.argmin(1)])
    o["ncc_accuracy_distance"] = float(np.mean(ncc == y))
    o["ncc_accuracy_inner_product"] = float(np.mean(np.array([classes[k] for k in (X @ mu.T).argmax(1)]) == y))
    if unorm.min() > 0:
        o["ncc_accuracy_cosine"] = float(
            np.mean(np.array([classes[k] for k in (X @ (mu / unorm[:, None]).T).argmax(1)]) == y)
        )
    if W is not None:
        W = np.asarray(W, F)
        b = np.zeros(len(W)) if b is None else np.asarray(b, F)
        lin, lin0 = (X @ W.T + b).argmax(1), (X @ W.T).argmax(1)
        o["linear_accuracy"] = float(np.mean(lin == y))
        o["nc4_mismatch"] = float(np.mean(lin != ncc))
        o["nc4_mismatch_no_bias"] = float(np.mean(lin0 != ncc))
        Wp, bp = W[classes], b[classes]
        if ok2:
            for nm, Wx in (("", Wp), ("_centered_w", Wp - Wp.mean(0))):
                o["nc3_frobenius" + nm] = float(np.linalg.norm(Wx / np.linalg.norm(Wx) - Mc / np.linalg.norm(Mc)))
                G = Wx @ Mc.T
                T = (np.eye(P) - 1 / P) / np.sqrt(P - 1)
                o["nc3_wh_etf" + nm] = float(np.linalg.norm(G / np.linalg.norm(G) - T))
                o["nc3_one_minus_cos" + nm] = float(
                    np.mean([1 - (w @ m) / (np.linalg.norm(w) * np.linalg.norm(m)) for w, m in zip(Wx, Mc)])
                )
            dots = np.array([w @ m for w, m in zip(Wp, Mc)])
            o["nc3_uniform_duality_var_ddof1"] = float(dots.var(ddof=1))
        o["nc3_bias"] = float(np.linalg.norm(bp + Wp @ mu_smp))

    # -------------------------------------------------------------- feature-level spectra
    s = np.linalg.svd(X, compute_uv=False)
    sc = np.linalg.svd(X - mu_smp, compute_uv=False)
    flat = float((sc**2).sum()) / N <= zero
    lc = sc**2 / N
    p = s / s.sum() + 1e-7
    o["rankme"] = float(np.exp(-np.sum(p * np.log(p))))
    o["feat_erank_sigma_uncentered"] = entropy_rank(s)
    o["feat_erank_sigma_centered"] = 0.0 if flat else entropy_rank(sc)
    o["feat_erank_lambda_centered"] = 0.0 if flat else entropy_rank(lc)
    o["feat_participation_ratio"] = 0.0 if flat else float(lc.sum() ** 2 / (lc**2).sum())
    o["feat_stable_rank_uncentered"] = float((s**2).sum() / s[0] ** 2)
    o["feat_nesum"] = 0.0 if flat else float(lc.sum() / lc[0])
    o["feat_numerical_rank_uncentered"] = int((s > max(N, d) * EPS * s[0]).sum())
    o["feat_rank_centered_1e-5"] = 0 if flat else int((lc > RTOL_EIG * lc[0]).sum())
    o["feat_top1_variance_fraction"] = nan if flat else float(lc[0] / lc.sum())
    o["feat_dims_99pct"] = 0 if flat else int(np.argmax(np.cumsum(lc) / lc.sum() >= 0.99 - 1e-12) + 1)
    k = np.arange(1, len(lc) + 1)
    good = lc > RTOL_EIG * lc[0]
    if not flat and good.sum() >= 3:
        o["feat_alpha_ols"] = float(-np.polyfit(np.log(k[good]), np.log(lc[good]), 1)[0])
        w = 1 / k[good]
        A = np.stack([-np.log(k[good]), np.ones(good.sum())], 1)
        o["feat_alpha_weighted"] = float(np.linalg.solve(A.T @ (A * w[:, None]), A.T @ (w * np.log(lc[good])))[0])
    else:
        o["feat_alpha_ols"] = o["feat_alpha_weighted"] = nan
    q = float(mu_smp @ mu_smp) + (0.0 if flat else float(lc.sum()))  # mean squared norm
    lq = np.zeros(d)
    lq[: len(lc)] = 0.0 if flat else lc / q
    o["feat_wasserstein_uniformity"] = float(np.sqrt(mu_smp @ mu_smp / q + np.sum((np.sqrt(lq) - 1 / np.sqrt(d)) ** 2)))
    u, su = np.linalg.svd(X, full_matrices=False)[:2]
    o["feat_inverse_condition"] = float(su[-1] / su[0])
    if d <= N and su[-1] > max(N, d) * EPS * su[0]:  # leverage is undefined for rank-deficient X
        o["feat_coherence"] = float(np.max(np.sum(u**2, 1)) * N / d)
    else:
        o["feat_coherence"] = nan
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    ex = N + N * (N - 1) / d
    o["feat_self_cluster"] = float((np.sum((Z @ Z.T) ** 2) - ex) / (N * N - ex))
    o["feat_std_l2_normalized"] = float(Z.std(0, ddof=1).mean())
    sq = np.concatenate([np.sum((Z[i + 1 :] - Z[i]) ** 2, 1) for i in range(N - 1)])
    o["uniformity_t2"] = float(np.log(np.mean(np.exp(-2 * sq))))
    al = []
    for c in classes:
        Zc = Z[y == c]
        al.append([np.sum((Zc[i] - Zc[j]) ** 2) for i in range(len(Zc)) for j in range(i + 1, len(Zc))])
    o["alignment_class_mean"] = float(np.mean([np.mean(a) for a in al if len(a)]))  # classes with >= 2 samples
    o["alignment_pair_mean"] = float(np.mean(np.concatenate([a for a in al if len(a)])))
    sd = X.std(0)
    if not flat and sd.min() > 0:
        R = np.corrcoef(X.T)
        o["feat_offdiag_corr_abs_mean"] = float(np.mean(np.abs(offdiag(R))))
    else:
        o["feat_offdiag_corr_abs_mean"] = nan
    return o


# ------------------------------------------------------------------ cases
def etf(C, d, rng=None):
    """C unit vectors of a simplex ETF in R^d (d >= C-1), randomly rotated."""
    A = np.eye(C) - 1 / C
    B = np.linalg.svd(A)[0][:, : C - 1] @ np.diag(np.linalg.svd(A)[1][: C - 1])
    B = B / np.linalg.norm(B, axis=1, keepdims=True)
    Q = np.eye(d) if rng is None else np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.pad(B, ((0, 0), (0, d - (C - 1)))) @ Q


def bf16_round(x):
    """round-to-nearest-even to bfloat16, returned as float64"""
    u = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    u = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16) << 16
    return u.astype(np.uint32).view(np.float32).astype(F)


def make_cases():
    cases = {}

    def add(name, X, y, C, W=None, b=None, note=""):
        cases[name] = dict(X=np.asarray(X, F), y=np.asarray(y, np.int64), C=C, W=W, b=b, note=note)

    def rep(M, n):
        return np.repeat(M, n, 0), np.repeat(np.arange(len(M)), n)

    r = np.random.default_rng(0)
    M = etf(10, 9, r)
    X, y = rep(M, 20)
    add("01_etf_exact", X, y, 10, 2.5 * M, np.zeros(10), "exact simplex ETF, d=C-1, full collapse, W = 2.5 M")
    for k, s in (("02_etf_noise_1e-1", 1e-1), ("03_etf_noise_1e-3", 1e-3), ("04_etf_noise_1e-6", 1e-6)):
        r = np.random.default_rng(int(k[:2]))
        M = etf(10, 16, r)
        X, y = rep(M, 20)
        add(
            k,
            X + s * r.standard_normal(X.shape),
            y,
            10,
            M + s * r.standard_normal(M.shape),
            s * r.standard_normal(10),
            f"ETF in d=16 > C-1, iid noise of std {s}",
        )
    r = np.random.default_rng(5)
    X = r.standard_normal((200, 12))
    y = np.repeat(np.arange(8), 25)
    add("05_gaussian", X, y, 8, r.standard_normal((8, 12)), r.standard_normal(8), "no class structure")
    r = np.random.default_rng(6)
    C, d = 100, 99
    B = np.linalg.qr(r.standard_normal((d, 2)))[0]
    t = 2 * np.pi * np.arange(C) / C
    M = np.stack([np.cos(t), 0.7 * np.sin(t)], 1) @ B.T
    X, y = rep(M, 10)
    add(
        "06_dimensional_collapse",
        X + 1e-4 * r.standard_normal(X.shape),
        y,
        C,
        M,
        None,
        "class means of rank 2, C=100, d=99, isotropic noise 1e-4",
    )
    r = np.random.default_rng(7)
    M = r.standard_normal((20, 4))
    M /= np.linalg.norm(M, axis=1, keepdims=True)
    X, y = rep(M, 15)
    add("07_more_classes_than_dims", X + 0.05 * r.standard_normal(X.shape), y, 20, M, np.zeros(20), "C=20 > d+1=5")
    r = np.random.default_rng(8)
    M = etf(6, 8, r) + 0.3
    ns = [100, 40, 20, 10, 5, 2]
    y = np.repeat(np.arange(6), ns)
    X = M[y] + 0.2 * r.standard_normal((len(y), 8)) * np.array([1, 2, 1, 0.5, 1, 1])[y][:, None]
    q = r.permutation(len(y))
    add("08_imbalanced", X[q], y[q], 6, 1.5 * M, 0.1 * r.standard_normal(6), f"counts {ns}, non-zero mean")
    r = np.random.default_rng(9)
    M = etf(7, 6, r)
    y = np.repeat([0, 1, 2, 4, 5, 6], 12)
    X = M[y] + 0.1 * r.standard_normal((len(y), 6))
    add("09_missing_class", X, y, 7, M, np.zeros(7), "declared C=7, class 3 absent")
    r = np.random.default_rng(10)
    M = etf(5, 6, r)
    y = np.r_[np.repeat([0, 1, 2, 3], 9), 4]
    X = M[y] + 0.15 * r.standard_normal((len(y), 6))
    add("10_single_sample_class", X, y, 5, M, np.zeros(5), "class 4 has one sample")
    v = np.array([0.5, -1.25, 2.0, 0.125, 0.75])
    y = np.repeat(np.arange(4), 8)
    add("11_all_equal", np.tile(v, (32, 1)), y, 4, np.eye(4, 5), np.zeros(4), "every feature the same vector")
    r = np.random.default_rng(12)
    M = 1e4 * etf(10, 12, r) + 3e4
    X, y = rep(M, 20)
    add(
        "12_huge_norms",
        X + 10 * r.standard_normal(X.shape),
        y,
        10,
        M - M.mean(0),
        -(M - M.mean(0)) @ M.mean(0),
        "ETF of radius 1e4 around an offset of 3e4 per coordinate, noise 10",
    )
    r = np.random.default_rng(13)
    M = etf(10, 16, r)
    X, y = rep(M, 20)
    add(
        "13_bf16",
        bf16_round(X + 1e-2 * r.standard_normal(X.shape)),
        y,
        10,
        bf16_round(M),
        None,
        "ETF + noise 1e-2, features and weights rounded to bfloat16 (values exactly representable)",
    )
    r = np.random.default_rng(14)
    M = np.abs(3 * etf(8, 32, r) + 1.0)
    X, y = rep(M, 20)
    add(
        "14_offset_relu_like",
        np.maximum(X + 0.3 * r.standard_normal(X.shape), 0),
        y,
        8,
        M - M.mean(0),
        None,
        "post-ReLU-like: non-negative features, large common mean, d > C-1",
    )
    r = np.random.default_rng(15)
    V = r.standard_normal((8, 5))
    V = np.round(V * 64) / 64
    add(
        "15_equal_class_means",
        np.tile(V, (4, 1)),
        np.repeat(np.arange(4), 8),
        4,
        r.standard_normal((4, 5)),
        None,
        "the same 8 vectors in every class: Sigma_B = 0, Sigma_W > 0 (pinv of peers returns 0, must be inf)",
    )
    return cases
